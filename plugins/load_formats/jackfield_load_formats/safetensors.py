"""Weights from safetensors files: mapped, each tensor read once, in file order.

https://github.com/huggingface/safetensors describes the format.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.checkpoint import TensorEntry, WeightFiles, check_safetensors, safetensors_files
from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError
from jackfield_load_formats.mapped import read_mapped

_DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
    "C64": torch.complex64,
}


class SafetensorsLoadFormat:
    """Implements ``LoadFormat``."""

    name: ClassVar[str] = "safetensors"
    api_version: ClassVar[int] = 1

    def check(self, files: CheckpointFiles) -> None:
        check_safetensors(weight_files(files))

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        return read_files(weight_files(files), files)


def read_files(weights: WeightFiles, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the files, in their order; as many are read ahead as ``files`` allows."""
    for name, _, tensor in read_mapped(check_safetensors(weights), files, _tensor):
        yield name, tensor


def weight_files(files: CheckpointFiles) -> WeightFiles:
    """The checkpoint's safetensors files; ``CheckpointError`` where there are none."""
    weights = safetensors_files(files.directory)
    if weights is None:
        raise CheckpointError(f"{files.directory} has no *.safetensors")
    return weights


def _tensor(path: Path, mapped: mmap.mmap, name: str, entry: TensorEntry) -> Tensor:
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None:
        raise CheckpointError(
            f"{path}: tensor {name} has the dtype {entry.dtype}, unknown to torch"
        )
    count = (entry.end - entry.begin) // dtype.itemsize
    if count == 0:
        return torch.empty(entry.shape, dtype=dtype)
    flat = torch.frombuffer(mapped, dtype=dtype, count=count, offset=entry.begin)
    return flat.view(entry.shape)
