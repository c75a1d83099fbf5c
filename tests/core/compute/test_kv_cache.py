"""The number of KV blocks follows from memory, and never exceeds what can be used."""

from __future__ import annotations

import pytest
import torch
from tests.core.compute.paged_model import PlainAttention
from tests.core.compute.steps import plan

from jackfield.compute.kv_cache import (
    activation_bytes,
    allocate_kv,
    bytes_per_block,
    num_kv_blocks,
)
from jackfield.contracts.attention import AttentionSpec
from jackfield.errors import ConfigError

GIB = 1 << 30
CPU = torch.device("cpu")
BACKEND = PlainAttention(CPU, torch.bfloat16, 16)
SPECS = [AttentionSpec(0, 16, 8, 128, 1.0), AttentionSpec(1, 16, 2, 64, 1.0)]


def test_bytes_of_a_block_are_those_of_its_tensors() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        layers = allocate_kv(SPECS, BACKEND, 7, dtype, CPU)
        held = sum(t.numel() * t.element_size() for kv in layers for t in (kv.key, kv.value))
        assert bytes_per_block(SPECS, BACKEND, dtype) * 7 == held
        assert all(not bool(t.any()) for kv in layers for t in (kv.key, kv.value))


def test_a_gpu_gives_its_share_less_what_is_used_and_reserved() -> None:
    big = plan(max_model_len=1 << 20, max_num_seqs=64, gpu_memory_utilization=0.9)
    blocks = num_kv_blocks(big, 1 << 16, 2 * GIB, (60 * GIB, 80 * GIB), on_cpu=False)
    expected = 72 * GIB - 20 * GIB - 2 * GIB - GIB // 4
    assert blocks == int(expected) // (1 << 16)
    given = plan(max_model_len=1 << 20, max_num_seqs=64, gpu_memory_utilization=0.9 * 80 * GIB)
    assert num_kv_blocks(given, 1 << 16, 2 * GIB, (60 * GIB, 80 * GIB), on_cpu=False) == blocks
    more = plan(max_model_len=1 << 20, max_num_seqs=64, gpu_memory_utilization=100.0 * GIB)
    whole = plan(max_model_len=1 << 20, max_num_seqs=64, gpu_memory_utilization=1.0)
    assert num_kv_blocks(more, 1 << 16, 0, (60 * GIB, 80 * GIB), on_cpu=False) == num_kv_blocks(
        whole, 1 << 16, 0, (60 * GIB, 80 * GIB), on_cpu=False
    )


def test_a_cpu_gives_what_the_option_says() -> None:
    small = plan(max_model_len=4096, max_num_seqs=64, cpu_kv_cache_bytes=GIB)
    assert num_kv_blocks(small, 1 << 16, 5 * GIB, (1, 1), on_cpu=True) == GIB >> 16


def test_no_more_blocks_than_full_sequences_can_use() -> None:
    tiny = plan(max_model_len=30, max_num_seqs=3, cpu_kv_cache_bytes=GIB)
    assert num_kv_blocks(tiny, 64, 0, (1, 1), on_cpu=True) == 3 * 8 + 1


@pytest.mark.parametrize(
    ("changes", "on_cpu", "flag"),
    [
        ({"cpu_kv_cache_bytes": 1024}, True, "--cpu-kv-cache-gib"),
        ({"num_blocks_override": 16}, True, "--num-gpu-blocks-override"),
        ({"gpu_memory_utilization": 0.1}, False, "--gpu-memory-utilization"),
    ],
)
def test_too_little_memory_is_one_line_that_says_what_to_do(
    changes: dict[str, object], on_cpu: bool, flag: str
) -> None:
    with pytest.raises(ConfigError) as error:
        num_kv_blocks(plan(**changes), 256, 0, (GIB, 2 * GIB), on_cpu=on_cpu)
    assert flag in str(error.value)
    assert "\n" not in str(error.value)


def test_the_largest_context_offered_fits() -> None:
    with pytest.raises(ConfigError) as error:
        num_kv_blocks(plan(num_blocks_override=16), 256, 0, (1, 1), on_cpu=True)
    offered = int(str(error.value).rsplit(" ", 1)[1])
    fits = plan(num_blocks_override=16, max_model_len=offered)
    assert num_kv_blocks(fits, 256, 0, (1, 1), on_cpu=True) == 16


def test_the_reserve_holds_the_largest_tensors_of_a_step() -> None:
    config = {"hidden_size": 4096, "intermediate_size": 12288, "vocab_size": 151936}
    big = plan(max_num_batched_tokens=8192, max_num_seqs=256)
    reserve = activation_bytes(config, big, 2)
    gate_up, logits = 8192 * 2 * 12288 * 2, 256 * 151936 * 10
    assert gate_up + logits < reserve < 4 * GIB
    wrapped = activation_bytes({"text_config": config}, big, 2)
    assert wrapped == reserve
