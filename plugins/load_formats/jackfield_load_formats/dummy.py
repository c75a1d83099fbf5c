"""Random weights for a model that has only ``config.json``; to measure speed, not sense.

Norms get ones, all else values of a fixed seed with the deviation 0.02: the numbers that flow
have the size of a real model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import ConfigError

_SEED = 0
_DEVIATION = 0.02
_POOL_SIZE = (1 << 24) - 3  # odd, so that the rows of a tensor that repeats it differ


class DummyLoadFormat:
    """Implements ``LoadFormat``: what the model wants, made on its device.

    A tensor is a piece of one pool of random numbers, so that the time goes into copies.
    """

    name: ClassVar[str] = "dummy"
    api_version: ClassVar[int] = 1

    def check(self, files: CheckpointFiles) -> None:
        """Nothing: no file but ``config.json`` is read."""

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        if files.wanted is None:
            raise ConfigError("--load-format dummy does not work with a worker that loads files")
        dtype, device = files.dtype or torch.float32, files.device or torch.device("cpu")
        generator = torch.Generator(device=device).manual_seed(_SEED)
        pool = torch.randn(_POOL_SIZE, generator=generator, device=device, dtype=torch.float32)
        pool = pool.mul_(_DEVIATION).to(dtype)
        start = 0
        for name, shape in files.wanted.items():
            if "norm" in name and name.endswith("weight"):
                yield name, torch.ones(shape, dtype=dtype, device=device)
                continue
            yield name, _piece(pool, start, shape)
            start = (start + prod(shape)) % _POOL_SIZE


def _piece(pool: Tensor, start: int, shape: tuple[int, ...]) -> Tensor:
    """``prod(shape)`` numbers of the pool from ``start`` on, around its end as often as needed."""
    count = prod(shape)
    if start + count <= len(pool):
        return pool[start : start + count].view(shape)
    repeats = -(-(start + count) // len(pool))
    return pool.repeat(repeats)[start : start + count].view(shape)
