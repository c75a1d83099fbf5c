"""Weights of ``torch.save`` by way of a folder of numpy files, which are mapped the next time.

The folder ``np`` beside the weights is written once, and again when the weights have changed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from jackfield.checkpoint import read_optional_json
from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError
from jackfield_load_formats.progress import progress
from jackfield_load_formats.pt import PtLoadFormat, weight_files

FOLDER = "np"
_INDEX = "index.json"
# numpy has no such dtypes: the bits are kept as integers.
_AS_INTEGERS = {2: torch.int16, 1: torch.uint8}


class NpCacheLoadFormat:
    """Implements ``LoadFormat``."""

    name: ClassVar[str] = "npcache"
    api_version: ClassVar[int] = 1

    def check(self, files: CheckpointFiles) -> None:
        PtLoadFormat().check(files)

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        self.check(files)
        folder = files.directory / FOLDER
        said = _said(files)
        index = read_optional_json(folder / _INDEX)
        if index.get("weights") != said:
            index = _write(files, folder, said)
        tensors = index["tensors"]
        assert isinstance(tensors, dict)
        total = sum((folder / file).stat().st_size for file, _ in tensors.values())
        with progress(total, files.show_progress) as advance:
            for name, (file, dtype) in tensors.items():
                yield name, _read(folder / file, getattr(torch, dtype))
                advance((folder / file).stat().st_size)


def _said(files: CheckpointFiles) -> dict[str, list[int]]:
    """What changes when the weights do."""
    found = {}
    for path in weight_files(files).files:
        status = path.stat()
        found[path.name] = [status.st_size, status.st_mtime_ns]
    return found


def _write(files: CheckpointFiles, folder: Path, said: dict[str, list[int]]) -> dict[str, object]:
    """Makes the folder anew; nobody sees half of it."""
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(
            f"cannot write {folder}: {error.strerror}; take --load-format pt"
        ) from None
    try:
        tensors: dict[str, tuple[str, str]] = {}
        for name, tensor in PtLoadFormat().iter_weights(files):
            file = f"{len(tensors)}.npy"
            tensors[name] = (file, str(tensor.dtype).removeprefix("torch."))
            np.save(made / file, _as_numpy(tensor.contiguous()), allow_pickle=False)
        index: dict[str, object] = {"weights": said, "tensors": tensors}
        (made / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error}; take --load-format pt") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return index


def _as_numpy(tensor: Tensor) -> np.ndarray:
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.view(_AS_INTEGERS[tensor.itemsize]).numpy()


def _read(path: Path, dtype: torch.dtype) -> Tensor:
    try:
        # Mapped for itself: a write would not reach the file.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError:
        # An empty array cannot be mapped.
        array = np.load(path, allow_pickle=False)
    tensor = torch.from_numpy(array)
    return tensor if tensor.dtype == dtype else tensor.view(dtype)
