"""Weights as one worker of vLLM saved its own: ``model-rank-0-part-0.safetensors``, merged names.

The query, key and value projections are one tensor there, and so are gate and up; here they are
cut again, by the sizes that the model asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.checkpoint import WeightFiles, check_safetensors
from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError, ConfigError
from jackfield_load_formats.safetensors import read_files

_MERGED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


class ShardedStateLoadFormat:
    """Implements ``LoadFormat`` for a state saved by a single worker."""

    name: ClassVar[str] = "sharded_state"
    api_version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class Options:
        """How the files are called."""

        pattern: str = field(
            default="model-rank-{rank}-part-{part}.safetensors",
            metadata={"help": "with {rank} and {part}"},
        )

        def __post_init__(self) -> None:
            if "{rank}" not in self.pattern or "{part}" not in self.pattern:
                raise ValueError("it needs {rank} and {part}")

    def __init__(self, *, options: Options | None = None) -> None:
        self._pattern = (options or self.Options()).pattern

    def check(self, files: CheckpointFiles) -> None:
        check_safetensors(self._weight_files(files))

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        wanted = files.wanted
        if wanted is None:
            raise ConfigError(f"--load-format {self.name} needs a worker that says what it wants")
        for name, tensor in read_files(self._weight_files(files), files):
            yield from _cut(name, tensor, wanted)

    def _weight_files(self, files: CheckpointFiles) -> WeightFiles:
        if next(files.directory.glob(self._glob(1)), None) is not None:
            raise CheckpointError(
                f"{files.directory} was saved by several workers; only a state of one can be loaded"
            )
        found = sorted(files.directory.glob(self._glob(0)), key=lambda path: _numbers(path.name))
        if not found:
            raise CheckpointError(f"{files.directory} has no {self._glob(0)}")
        return WeightFiles(tuple(found))

    def _glob(self, rank: int) -> str:
        return self._pattern.replace("{rank}", str(rank)).replace("{part}", "*")


def _cut(
    name: str, tensor: Tensor, wanted: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the checkpoint that are in one of the state."""
    for merged, parts in _MERGED.items():
        names = [name.replace(f".{merged}.", f".{part}.") for part in parts]
        if f".{merged}." in name and all(each in wanted for each in names):
            rows = [wanted[each][0] for each in names]
            if sum(rows) != tensor.shape[0]:
                raise CheckpointError(
                    f"tensor {name} has {tensor.shape[0]} rows, this config.json needs {sum(rows)}"
                )
            yield from zip(names, torch.split(tensor, rows), strict=True)
            return
    shape = wanted.get(name)
    if shape is not None and shape[1:] == tuple(tensor.shape[1:]) and shape[0] < tensor.shape[0]:
        # A vocabulary is filled up to a round number of rows.
        tensor = tensor[: shape[0]]
    yield name, tensor


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]
