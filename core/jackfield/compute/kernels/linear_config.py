"""How the products of few rows on Hopper cut their work: tiles, stages, parts, programs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from jackfield.compute.kernels.launch import cdiv, power_of_2

MAX_SPLIT_OUTPUTS = 8192
"""Outputs times parts, where the inner dimension is split."""


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """A tile's rows of x, rows of the weight and inner elements; tiles in shared memory; parts of
    the inner dimension; products that run while another is prepared."""

    block_m: int
    block_n: int
    block_k: int
    stages: int
    split: int
    pending: int = 0


_PROCESSORS = 132
_ROOM, _SHARED_ROOM, _THIRD_ROOM = 200 << 10, 80 << 10, 75 << 10
"""Bytes of shared memory for a program's tiles where a processor has one, two or three programs.
Two: those of a wide weight with few inputs are so short that one loads while the other ends. Three:
wide weights of large models take one round, not three of which the last is for some processors."""


@cache
def linear_config(m: int, n: int, k: int) -> LinearConfig:
    """What measured best on an H200: as many bytes on their way to a processor as it can hold."""
    return _few_rows(m, n, k) if m <= 64 else _many_rows(m, n, k)


def _few_rows(m: int, n: int, k: int) -> LinearConfig:
    """Bound by reading the weight: all rows of x are in one tile."""
    block_m, tiles = max(16, power_of_2(m)), cdiv(n, 64)
    if tiles > 2 * _PROCESSORS and k <= 2048:
        block_k = 256 if m <= 16 else 64 if m <= 32 else 128
        return _fitted(block_m, 64, block_k, 1, k, _SHARED_ROOM, pending=False)
    if tiles > 2 * _PROCESSORS and m <= 32:
        return _fitted(block_m, 64, 128, 1, k, _THIRD_ROOM, pending=False)
    split = 1
    if tiles <= 16 and k >= 1024:
        split = 4 if m <= 16 and k > 2048 else 2
    elif tiles <= 64 and k >= (4096 if m <= 32 else 8192):
        split = 2
    # A product of few rows is over before the next tile could be asked for.
    return _fitted(block_m, 64, 256 if m <= 32 else 128, split, k, _ROOM, pending=m > 32)


def _many_rows(m: int, n: int, k: int) -> LinearConfig:
    """Bound by what goes from L2 to processors: one program each, of the largest tiles."""
    tiles = cdiv(n, 64)
    for block_m in (32, 64, 128):
        if cdiv(m, block_m) * tiles <= _PROCESSORS:
            return _fitted(block_m, 64, 128, 1, k, _ROOM, pending=True)
    return _fitted(128, 128, 64, 1, k, _ROOM, pending=True)


@cache
def float8_config(m: int, n: int, k: int) -> LinearConfig:
    """The same for weights and rows of 8 bits."""
    tiles = cdiv(n, 64)
    split = 4 if tiles <= 16 and k >= 1024 else 2 if tiles <= 64 and k >= 8192 and m > 32 else 1
    if tiles * split > 2 * _PROCESSORS:
        block_k, room = (256 if m <= 16 else 64 if m <= 32 else 128), _SHARED_ROOM
    else:
        block_k, room = (128 if m > 32 or (m > 16 and k <= 1024) else 256), _ROOM
    return _fitted(max(16, power_of_2(m)), 64, block_k, split, k, room, pending=False, itemsize=1)


def _fitted(
    block_m: int,
    block_n: int,
    block_k: int,
    split: int,
    k: int,
    room: int,
    *,
    pending: bool,
    itemsize: int = 2,
) -> LinearConfig:
    # As many stages as there is room and use for.
    stages = min(room // ((block_m + block_n) * block_k * itemsize), cdiv(k, split * block_k))
    return LinearConfig(block_m, block_n, block_k, stages, split, int(pending and stages > 1))
