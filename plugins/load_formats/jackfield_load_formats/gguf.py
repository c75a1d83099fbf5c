"""Weights from GGUF files: mapped, each tensor read once; codes are given as they lie there.

A quantized tensor comes as uint8 [rows, bytes of a row]: what the bytes mean is the business of
the quantization method ``gguf``, to which the checkpoint's ``quantization_config`` tells the type
of each layer.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.checkpoint import Gguf, GgufTensor, checkpoint_names, gguf_file, read_gguf
from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError
from jackfield_load_formats.mapped import read_mapped
from jackfield_load_formats.rotary_order import halves_of_heads

_DTYPES: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# Whose rotary embedding turns neighbours, in this format.
_TURNS_NEIGHBOURS = "llama"
_ADDS_ONE = ("gemma", "gemma2", "gemma3")
_HEADS = {".attn_q.": "head_count", ".attn_k.": "head_count_kv"}


class GgufLoadFormat:
    """Implements ``LoadFormat``."""

    name: ClassVar[str] = "gguf"
    api_version: ClassVar[int] = 1

    def check(self, files: CheckpointFiles) -> None:
        _read(files)

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        gguf = _read(files)
        headers: dict[Path, dict[str, GgufTensor]] = {}
        for name, stored in gguf.tensors.items():
            headers.setdefault(stored.file, {})[name] = stored
        for name, stored, tensor in read_mapped(headers, files, _view):
            ours = checkpoint_names(name, stored, gguf.architecture)
            if len(stored.shape) == 3:
                yield from zip(ours, tensor, strict=True)
            else:
                yield from ((each, _as_published(gguf, name, tensor)) for each in ours)


def _read(files: CheckpointFiles) -> Gguf:
    path = gguf_file(files.directory)
    if path is None:
        raise CheckpointError(f"{files.directory} has no .gguf file")
    return read_gguf(path)


def _view(path: Path, mapped: mmap.mmap, name: str, stored: GgufTensor) -> Tensor:
    dtype = _DTYPES.get(stored.type.name, torch.uint8)
    count = (stored.end - stored.begin) // dtype.itemsize
    flat = torch.frombuffer(mapped, dtype=dtype, count=count, offset=stored.begin)
    return flat.view(*stored.shape[:-1], -1)


def _as_published(gguf: Gguf, name: str, tensor: Tensor) -> Tensor:
    """Queries and keys in the order of Hugging Face; Gemma's norms without the 1 that its code
    adds to them."""
    if name.endswith("norm.weight") and gguf.architecture in _ADDS_ONE:
        return tensor - 1
    key = next((key for part, key in _HEADS.items() if part in name), None)
    if key is None or gguf.architecture != _TURNS_NEIGHBOURS:
        return tensor
    heads = gguf.integer("llama.attention.head_count")
    return halves_of_heads(name, tensor, gguf.integer(f"llama.attention.{key}", heads))
