"""The number of KV blocks follows from memory, and never exceeds what can be used."""

from __future__ import annotations

import pytest
import torch
from tests.core.compute.paged_model import PlainAttention
from tests.core.compute.steps import plan

from jackfield.compute.kv_cache import (
    Needs,
    activation_bytes,
    allocate_kv,
    bytes_per_block,
    num_first_blocks,
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


def blocks_of(share: float, memory: tuple[int, int], needs: Needs) -> int:
    big = plan(max_model_len=1 << 19, max_num_seqs=64, gpu_memory_utilization=share)
    return num_kv_blocks(big, 1 << 16, needs, memory, on_cpu=False)


def test_a_gpu_gives_its_share_less_weights_and_activations() -> None:
    needs = Needs(weights=19 * GIB, activations=2 * GIB, beside=3 * GIB)
    memory = (60 * GIB, 80 * GIB)
    assert blocks_of(0.9, memory, needs) == (72 - 19 - 2) * GIB >> 16
    assert blocks_of(0.9 * 80 * GIB, memory, needs) == blocks_of(0.9, memory, needs)


def test_what_is_not_free_is_not_given() -> None:
    needs = Needs(weights=19 * GIB, activations=2 * GIB, beside=3 * GIB)
    everything = (60 - 2 - 3) * GIB - GIB // 4 >> 16
    assert blocks_of(1.0, (60 * GIB, 80 * GIB), needs) == everything
    assert blocks_of(100.0 * GIB, (60 * GIB, 80 * GIB), needs) == everything
    # Another engine has half of the device: this one has its share all the same.
    assert blocks_of(0.45, (24 * GIB, 80 * GIB), Needs(20 * GIB)) == (36 - 20) * GIB >> 16


def test_a_cpu_gives_what_the_option_says() -> None:
    small = plan(max_model_len=4096, max_num_seqs=64, cpu_kv_cache_bytes=GIB)
    assert num_kv_blocks(small, 1 << 16, Needs(5 * GIB), (1, 1), on_cpu=True) == GIB >> 16


@pytest.mark.parametrize("on_cpu", [False, True])
def test_a_size_in_bytes_goes_before_everything_else(on_cpu: bool) -> None:
    sized = plan(
        max_model_len=1 << 17,
        max_num_seqs=64,
        kv_cache_bytes=3 * GIB,
        cpu_kv_cache_bytes=GIB,
        gpu_memory_utilization=0.1,
    )
    memory = (60 * GIB, 80 * GIB)
    assert num_kv_blocks(sized, 1 << 16, Needs(19 * GIB), memory, on_cpu=on_cpu) == 3 * GIB >> 16
    assert num_first_blocks(sized, 1 << 16, on_cpu=on_cpu) is None


def test_a_size_that_a_gpu_has_not_free_is_refused() -> None:
    sized = plan(kv_cache_bytes=8 * GIB)
    needs = Needs(weights=19 * GIB, activations=2 * GIB, beside=3 * GIB)
    free = 12 * GIB - 2 * GIB - 3 * GIB - GIB // 4
    with pytest.raises(ConfigError, match=f"kv-cache-memory-bytes {8 * GIB}: .* {free} bytes"):
        num_kv_blocks(sized, 1 << 16, needs, (12 * GIB, 80 * GIB), on_cpu=False)


@pytest.mark.parametrize(("free", "given"), [(64 * GIB, 4 * GIB), (6 * GIB, 3 * GIB)])
def test_without_an_option_a_cpu_gives_4_gib_or_half_of_what_is_free(free: int, given: int) -> None:
    auto = plan(max_model_len=1 << 17, max_num_seqs=64, cpu_kv_cache_bytes=None)
    assert num_kv_blocks(auto, 1 << 16, Needs(), (free, 2 * free), on_cpu=True) == given >> 16


def test_no_more_blocks_than_full_sequences_can_use() -> None:
    tiny = plan(max_model_len=30, max_num_seqs=3, cpu_kv_cache_bytes=GIB)
    assert num_kv_blocks(tiny, 64, Needs(), (1, 1), on_cpu=True) == 3 * 8 + 1


@pytest.mark.parametrize(
    ("changes", "on_cpu", "flag"),
    [
        ({"cpu_kv_cache_bytes": 1024}, True, "--cpu-kv-cache-gib"),
        ({"kv_cache_bytes": 1024}, True, "--kv-cache-memory-bytes"),
        ({"num_blocks_override": 16}, True, "--num-gpu-blocks-override"),
        ({"gpu_memory_utilization": 1e-6}, False, "--gpu-memory-utilization"),
    ],
)
def test_too_little_memory_is_one_line_that_says_what_to_do(
    changes: dict[str, object], on_cpu: bool, flag: str
) -> None:
    with pytest.raises(ConfigError) as error:
        num_kv_blocks(plan(**changes), 256, Needs(), (GIB, 2 * GIB), on_cpu=on_cpu)
    assert flag in str(error.value)
    assert "\n" not in str(error.value)


def test_the_largest_context_offered_fits() -> None:
    with pytest.raises(ConfigError) as error:
        num_kv_blocks(plan(num_blocks_override=16), 256, Needs(), (1, 1), on_cpu=True)
    offered = int(str(error.value).rsplit(" ", 1)[1])
    fits = plan(num_blocks_override=16, max_model_len=offered)
    assert num_kv_blocks(fits, 256, Needs(), (1, 1), on_cpu=True) == 16


def test_activations_hold_the_largest_tensors_of_a_step() -> None:
    config = {"hidden_size": 4096, "intermediate_size": 12288, "vocab_size": 151936}
    big = plan(max_num_seqs=256)
    activations = activation_bytes(config, big, 8192, 2)
    assert 8192 * 3 * 12288 * 2 < activations < 2 * GIB
    # Of a small step the logits are the largest: in the model's dtype, and twice in float32.
    assert 256 * 151936 * 10 < activation_bytes(config, big, 16, 2) < GIB
    wrapped = activation_bytes({"text_config": config}, big, 8192, 2)
    assert wrapped == activations
