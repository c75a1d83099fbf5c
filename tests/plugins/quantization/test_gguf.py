"""A GGUF file of every type over a whole model: logprobs are transformers' with its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.checkpoints import make
from tests.gguf_blocks import SUPER_BLOCKS, TYPES
from tests.gguf_files import convert, mixed, with_numbers, write
from tests.plugins.quantization.test_methods import expected, logprobs, worker_plan


@pytest.mark.parametrize("kind", list(TYPES))
def test_a_file_is_served_as_the_numbers_it_stands_for(kind: str, tmp_path: Path) -> None:
    size = 256 if kind in SUPER_BLOCKS else 96
    source = make(
        "Qwen3ForCausalLM",
        hidden_size=size,
        intermediate_size=size,
        num_hidden_layers=2,
        head_dim=size // 4,
    )
    metadata, tensors, numbers = convert(source, lambda name: kind)
    write(tmp_path / "model.gguf", metadata, tensors)
    found = logprobs(worker_plan(tmp_path / "model.gguf"))
    torch.testing.assert_close(found, expected(with_numbers(source, numbers)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "kinds"),
    [
        ("LlamaForCausalLM", ("Q4_K", "Q6_K", "F16")),
        ("Qwen2ForCausalLM", ("Q5_K", "Q8_0")),
        ("MistralForCausalLM", ("Q4_0", "IQ4_NL", "BF16")),
        ("Qwen3MoeForCausalLM", ("Q4_K", "Q8_0", "F32")),
    ],
)
def test_types_may_be_mixed(architecture: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    source = make(
        architecture,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        head_dim=64,
        moe_intermediate_size=256,
    )
    metadata, tensors, numbers = convert(source, mixed(kinds))
    write(tmp_path / "model.gguf", metadata, tensors)
    found = logprobs(worker_plan(tmp_path))
    torch.testing.assert_close(found, expected(with_numbers(source, numbers)), atol=1e-4, rtol=0)
