"""Weights in tiles of codes as ``linear_codes_tiles.c`` reads them, and their products."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from jackfield.compute.native.calls import NativeFunction
from jackfield.compute.native.library import load_for

TILE = 16
"""Rows of a weight that lie together."""
SUPER = 256
"""Inputs with one upper scale where scales have two levels."""


class Coding(IntEnum):
    """What the lines of a tile hold; see the C file."""

    BYTES = 0
    HALVES = 1
    LOOKED_UP = 2
    SIX = 3


_LEVELS = {torch.float32: 0, torch.float16: 1, torch.int8: 2}
_FIELDS = (
    *("codes", "lookup", "scales", "shifts", "upper_scales", "upper_shifts"),
    *("outputs", "inputs", "log_group", "coding", "zero", "levels", "unit", "planes"),
)
_NUM_ARRAYS = 6


class _Tiled(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p if place < _NUM_ARRAYS else ctypes.c_int64)
        for place, name in enumerate(_FIELDS)
    )


@dataclass(frozen=True, slots=True)
class Tiles:
    """A weight [N, K], K being whole units. ``codes`` uint8 [T, bytes], T tiles; ``lookup`` uint8
    [16], None where the coding has none; ``scales`` [T, groups, 16] float32, float16, or int8, then
    with ``upper_scales`` float16 [T, K / 256, 16]; ``shifts`` the same or None.

    Activations become integers with a scale for ``unit`` inputs: of 8 bits, or of 16 where they
    take two ``planes``.
    """

    codes: Tensor
    lookup: Tensor | None
    scales: Tensor
    shifts: Tensor | None
    upper_scales: Tensor | None
    upper_shifts: Tensor | None
    shape: tuple[int, int]
    log_group: int
    coding: Coding
    zero: int
    unit: int
    planes: int

    def structure(self) -> _Tiled:
        """What the kernel reads; good while the tensors are."""
        arrays = (getattr(self, name) for name in _FIELDS[:_NUM_ARRAYS])
        addresses = (None if array is None else array.data_ptr() for array in arrays)
        levels = _LEVELS[self.scales.dtype]
        numbers = (self.log_group, int(self.coding), self.zero, levels, self.unit, self.planes)
        return _Tiled(*addresses, *self.shape, *numbers)


class TileKernels:
    """Products by tiles; contiguous CPU tensors of one dtype in and out."""

    def __init__(self, library: ctypes.CDLL) -> None:
        types = (*(ctypes.c_void_p,) * 4, ctypes.c_int64)
        self._multiply = NativeFunction(library, "linear_coded_tiles", types)
        self._room = library.coded_tiles_room
        self._room.argtypes, self._room.restype = (ctypes.c_int64,) * 4, ctypes.c_int64

    def multiply(self, x: Tensor, weight: _Tiled) -> Tensor:
        """x [T, K] -> x @ weight.T, [T, N]."""
        x = x.contiguous()
        num_tokens = len(x)
        out = x.new_empty((num_tokens, weight.outputs))
        room_bytes = self._room(num_tokens, weight.inputs, weight.unit, weight.planes)
        room = torch.empty(room_bytes, dtype=torch.uint8)
        arrays = (x.data_ptr(), out.data_ptr(), room.data_ptr())
        self._multiply(ctypes.addressof(weight), *arrays, num_tokens)
        return out


@functools.cache
def tile_kernels_for(dtype: torch.dtype) -> TileKernels | None:
    """The kernels for tensors of ``dtype``; None where there is no compiler, the processor lacks
    the instructions (AVX-512 VNNI), or ``dtype`` is worth more than 16 bits."""
    library = load_for(dtype, "linear_codes_tiles")
    if library is None:
        return None
    library.has_coded_tiles.restype = ctypes.c_int64
    return TileKernels(library) if library.has_coded_tiles() else None
