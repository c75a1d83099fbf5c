"""GGUF files give Hugging Face's tensors; codes as they lie in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from tests.checkpoints import make
from tests.gguf_files import STORED_METADATA, Stored, convert, gguf_name, write, write_split
from torch import Tensor

from jackfield.contracts.loading import CheckpointFiles, LoadFormat
from jackfield.testing import LoadFormatContract
from jackfield_load_formats.auto import AutoLoadFormat
from jackfield_load_formats.gguf import GgufLoadFormat


class TestGguf(LoadFormatContract):
    load_format: ClassVar[Callable[[], LoadFormat]] = GgufLoadFormat

    def write(self, directory: Path, tensors: Mapping[str, Tensor]) -> None:
        stored = {
            gguf_name(name): Stored("F32", tuple(tensor.shape), tensor.numpy())
            for name, tensor in tensors.items()
        }
        write(directory / "model.gguf", STORED_METADATA, stored)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3MoeForCausalLM"])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_plain_tensors_are_those_of_the_checkpoint(
    architecture: str, kind: str, tmp_path: Path
) -> None:
    source = make(architecture)
    metadata, tensors, numbers = convert(source, lambda name: kind)
    first = write_split(tmp_path, metadata, tensors, 2)
    found = dict(AutoLoadFormat().iter_weights(CheckpointFiles(first, {})))
    original = load_file(source / "model.safetensors")
    assert set(found) == set(original) - {"lm_head.weight"} | ({"lm_head.weight"} & set(numbers))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.float(), numbers[name], rtol=0, atol=0)
        torch.testing.assert_close(tensor.float(), original[name], rtol=0.01, atol=0.01)


def test_codes_are_bytes_of_the_file(tmp_path: Path) -> None:
    metadata, tensors, _ = convert(make("Qwen3ForCausalLM"), lambda name: "Q8_0")
    write(tmp_path / "model.gguf", metadata, tensors)
    found = dict(GgufLoadFormat().iter_weights(CheckpointFiles(tmp_path, {})))
    down = found["model.layers.1.mlp.down_proj.weight"]
    assert down.dtype is torch.uint8 and down.shape == (64, 96 // 32 * 34)
    assert down.numpy().tobytes() == tensors["blk.1.ffn_down.weight"].data.tobytes()
