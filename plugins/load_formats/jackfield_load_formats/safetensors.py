"""Weights from safetensors files: mapped, each tensor read once, in file order.

https://github.com/huggingface/safetensors describes the format. The mapping is private: a
tensor is a view of the page cache, and no write can reach the file.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.checkpoint import TensorEntry, WeightFiles, check_safetensors, safetensors_files
from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError
from jackfield_load_formats.progress import progress

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
# A private mapping that is not reserved may be larger than the machine's memory. The mmap module
# of some Python versions does not have the name; the value is Linux's, on every architecture
# that torch is built for.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_READ_AHEAD_BYTES = 64 << 20


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
    headers = check_safetensors(weights)
    total = sum(entry.end - entry.begin for h in headers.values() for entry in h.values())
    stop = threading.Event()
    # Threads take the next file from one iterator, whose ``next`` is atomic.
    paths = iter(tuple(headers))
    readers = [
        threading.Thread(target=_read_ahead, args=(paths, stop), name="read-ahead", daemon=True)
        for _ in range(min(files.max_parallel or 1, len(headers)))
    ]
    for reader in readers:
        reader.start()
    try:
        with progress(total, files.show_progress) as advance:
            for path, entries in headers.items():
                for name, entry, tensor in _tensors(path, entries):
                    yield name, tensor
                    advance(entry.end - entry.begin)
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def weight_files(files: CheckpointFiles) -> WeightFiles:
    """The checkpoint's safetensors files; ``CheckpointError`` where there are none."""
    weights = safetensors_files(files.directory)
    if weights is None:
        raise CheckpointError(f"{files.directory} has no *.safetensors")
    return weights


def _tensors(
    path: Path, entries: Mapping[str, TensorEntry]
) -> Iterator[tuple[str, TensorEntry, Tensor]]:
    with path.open("rb") as stream:
        mapped = mmap.mmap(
            stream.fileno(),
            0,
            flags=mmap.MAP_PRIVATE | _MAP_NORESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    for name, entry in entries.items():
        yield name, entry, _tensor(path, mapped, name, entry)
        _let_go(mapped, entry)


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


def _let_go(mapped: mmap.mmap, entry: TensorEntry) -> None:
    """The tensor's pages no longer count as this process's memory. They stay in the page cache,
    and one that a layer still looks at comes back when it does."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = -(-entry.begin // mmap.PAGESIZE) * mmap.PAGESIZE
    length = entry.end // mmap.PAGESIZE * mmap.PAGESIZE - begin
    if length > 0:
        mapped.madvise(mmap.MADV_DONTNEED, begin, length)


def _read_ahead(paths: Iterator[Path], stop: threading.Event) -> None:
    """Asks for the files in large pieces, ahead of the page faults that would ask for little."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            for begin in range(0, size, _READ_AHEAD_BYTES):
                if stop.is_set():
                    return
                os.posix_fadvise(stream.fileno(), begin, _READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
