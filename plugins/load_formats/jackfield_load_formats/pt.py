"""Weights from the files of ``torch.save``, mapped; only tensors are unpickled, never code."""

from __future__ import annotations

import pickle
import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.checkpoint import WeightFiles, check_pt, pt_files
from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError
from jackfield_load_formats.progress import progress


class PtLoadFormat:
    """Implements ``LoadFormat`` for ``pytorch_model*.bin``."""

    name: ClassVar[str] = "pt"
    api_version: ClassVar[int] = 1

    def check(self, files: CheckpointFiles) -> None:
        check_pt(weight_files(files))

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        weights = weight_files(files)
        check_pt(weights)
        total = sum(path.stat().st_size for path in weights.files)
        with progress(total, files.show_progress) as advance:
            for path, state in zip(weights.files, _states(weights, files), strict=True):
                yield from state.items()
                advance(path.stat().st_size)


def _states(weights: WeightFiles, files: CheckpointFiles) -> Iterator[dict[str, Tensor]]:
    """The files in their order; as many are read at once as ``files`` allows."""
    at_once = min(files.max_parallel or 1, len(weights.files))
    if at_once == 1:
        yield from map(_read, weights.files)
        return
    with ThreadPoolExecutor(at_once, thread_name_prefix="read-ahead") as pool:
        left = iter(weights.files)
        reading = deque(pool.submit(_read, path) for path in islice(left, at_once))
        while reading:
            yield reading.popleft().result()
            reading.extend(pool.submit(_read, path) for path in islice(left, 1))


def weight_files(files: CheckpointFiles) -> WeightFiles:
    """The checkpoint's files; ``CheckpointError`` where there are none."""
    weights = pt_files(files.directory)
    if weights is None:
        raise CheckpointError(f"{files.directory} has no pytorch_model*.bin")
    return weights


def _read(path: Path) -> dict[str, Tensor]:
    # Files from before torch 1.6 are no zip archives and cannot be mapped.
    mappable = zipfile.is_zipfile(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"cannot read {path}: {reason[0]}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"cannot read {path}: it holds no dictionary of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"cannot read {path}: {name!r} is no tensor")
    return state
