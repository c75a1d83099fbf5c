"""A coded weight in the order in which a CPU with AVX-512 VNNI multiplies it: tiles of 16 rows.

weight[n, k] = (code[n, k] - zero) * scale[n, k // group] + shift[n, k // group]

Codes are unsigned, of 4, 6 or 8 bits: what a table stands for is made integers if it is evenly
spaced or has small ones. The numbers are exactly those of the ``CodedWeight``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.native.code_tiles import (
    SUPER,
    TILE,
    Coding,
    TileKernels,
    Tiles,
    tile_kernels_for,
)
from jackfield.compute.native.library import WHOLE_ROW

_BYTES_OF_16 = {Coding.BYTES: 16, Coding.HALVES: 8, Coding.LOOKED_UP: 8, Coding.SIX: 12}
"""Bytes of 16 inputs of a row."""
_MOST_UNIT = 64
_ROWS_AT_ONCE = 1024
"""Rows that are unpacked together, so that loading takes little more than the weight."""


@dataclass(frozen=True)
class TiledWeight:
    """[N, K] numbers; the arrays are ``Tiles``'."""

    tiles: Tiles
    inputs: int

    @classmethod
    def of(cls, weight: CodedWeight, dtype: torch.dtype) -> TiledWeight | None:
        """None where ``CodedWeight`` multiplies better: activations of another dtype or another
        processor than the kernels are for, codes that are no integers."""
        meaning = _Meaning.of(weight)
        log_group = weight.log_group
        on_cpu = weight.packed.device.type == "cpu"
        if not on_cpu or meaning is None or log_group is None or tile_kernels_for(dtype) is None:
            return None
        scales, shifts = weight.scales * meaning.step, weight.shifts
        levels = _two_levels(weight, scales) if meaning.step == 1 else None
        if levels is None:
            levels = _one_level(scales, shifts)
        group = weight.group_size
        # Eight bits that have a scale for many inputs are meant to be as good as the numbers.
        planes = 2 if meaning.coding is Coding.BYTES and group > 32 else 1
        tiles = Tiles(
            codes=_in_tiles(weight, meaning),
            lookup=meaning.lookup,
            scales=levels.scales,
            shifts=levels.shifts,
            upper_scales=levels.upper_scales,
            upper_shifts=levels.upper_shifts,
            shape=(len(weight.packed), weight.padded),
            log_group=log_group,
            coding=meaning.coding,
            zero=meaning.zero,
            unit=_MOST_UNIT if log_group == WHOLE_ROW else min(group, _MOST_UNIT),
            planes=planes,
        )
        return cls(tiles, weight.inputs)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.tiles.shape[0], self.inputs

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        tiles = self.tiles
        arrays = (tiles.codes, tiles.scales, tiles.shifts, tiles.upper_scales, tiles.upper_shifts)
        return sum(array.nbytes for array in arrays if array is not None)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [T, K] -> x @ weight.T + bias, [T, N] in x's dtype."""
        kernels = self._kernels(x.dtype)
        if kernels is None:
            return F.linear(x, self.decode(x.dtype), bias)
        if self.tiles.shape[1] != self.inputs:
            x = F.pad(x, (0, self.tiles.shape[1] - self.inputs))
        out = kernels.multiply(x, self._structure)
        return out if bias is None else out.add_(bias)

    def look_up(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """int64 [M] -> the numbers of these rows, [M, K], rounded once."""
        tiles, (place, within) = self.tiles, (rows // TILE, rows % TILE)
        fours = tiles.codes.view(len(tiles.codes), -1, TILE, 4)[place, :, within]
        codes = _unpacked(fours.flatten(1), tiles.coding)
        if tiles.lookup is not None:
            codes = tiles.lookup[codes.long()]

        def factors(lower: Tensor, upper: Tensor | None) -> Tensor:
            found = lower[place, :, within].float()
            if upper is None:
                return found
            above = upper[place, :, within].float()
            return (found.view(*above.shape, -1) * above[..., None]).flatten(1)

        scales = factors(tiles.scales, tiles.upper_scales)
        numbers = (codes.float() - tiles.zero).view(*scales.shape, -1) * scales[..., None]
        if tiles.shifts is not None:
            numbers += factors(tiles.shifts, tiles.upper_shifts)[..., None]
        return numbers.flatten(1)[:, : self.inputs].to(dtype)

    def decode(self, dtype: torch.dtype) -> Tensor:
        """All numbers, [N, K]."""
        return self.look_up(torch.arange(self.shape[0]), dtype)

    def _kernels(self, dtype: torch.dtype) -> TileKernels | None:
        return tile_kernels_for(dtype)

    @cached_property
    def _structure(self):  # type: ignore[no-untyped-def]
        return self.tiles.structure()


class _Meaning(NamedTuple):
    """Codes as integers: (lookup[code] or code + offset - zero) * step."""

    coding: Coding
    zero: int
    step: float = 1.0
    lookup: Tensor | None = None
    offset: int = 0
    """What makes stored bytes unsigned."""

    @classmethod
    def of(cls, weight: CodedWeight) -> _Meaning | None:
        if weight.table is None:
            least, most = weight.packed.view(torch.int8).aminmax()
            fits = int(least) >= -32 and int(most) < 32
            return cls(Coding.SIX, 32, offset=32) if fits else cls(Coding.BYTES, 128, offset=128)
        if weight.bits != 4:
            return None
        step = _step_of(weight.table)
        if step is None:
            return None
        integers = weight.table / step
        zero = -int(integers.min())
        codes = (integers + zero).to(torch.uint8)
        if torch.equal(codes, torch.arange(16, dtype=torch.uint8)):
            return cls(Coding.HALVES, zero, step)
        return cls(Coding.LOOKED_UP, zero, step, codes)


def _step_of(table: Tensor) -> float | None:
    """The largest power of 2 that all entries are multiples of, if they are within 255 of them."""
    most = float(table.abs().max())
    if not 0 < most < float("inf"):
        return None
    for power in range(8, -9, -1):
        step = 2.0**power
        multiples = table / step
        if torch.equal(multiples, multiples.round()):
            return step if float(multiples.max() - multiples.min()) <= 255 else None
    return None


class _Levels(NamedTuple):
    scales: Tensor
    shifts: Tensor | None
    upper_scales: Tensor | None = None
    upper_shifts: Tensor | None = None


def _one_level(scales: Tensor, shifts: Tensor | None) -> _Levels:
    """In float16 where all of them are, exactly."""
    halves = [None if array is None else array.half() for array in (scales, shifts)]
    for half, array in zip(halves, (scales, shifts), strict=True):
        if half is not None and array is not None and not torch.equal(half.float(), array):
            return _Levels(_by_tile(scales), None if shifts is None else _by_tile(shifts))
    assert halves[0] is not None, "there are always scales"
    return _Levels(_by_tile(halves[0]), None if halves[1] is None else _by_tile(halves[1]))


def _two_levels(weight: CodedWeight, scales: Tensor) -> _Levels | None:
    """The integers that scales and shifts are of their upper ones; None where they are none."""
    if weight.upper_scales is None or weight.padded % SUPER:
        return None
    lower = _lower(scales, weight.upper_scales)
    if lower is None:
        return None
    if weight.shifts is None:
        return _Levels(_by_tile(lower), None, _by_tile(weight.upper_scales))
    if weight.upper_shifts is None:
        return None
    lower_shifts = _lower(weight.shifts, weight.upper_shifts)
    if lower_shifts is None:
        return None
    upper = (_by_tile(weight.upper_scales), _by_tile(weight.upper_shifts))
    return _Levels(_by_tile(lower), _by_tile(lower_shifts), *upper)


def _lower(scales: Tensor, upper: Tensor) -> Tensor | None:
    """int8, of scales' shape."""
    above = upper.float()[..., None]
    by_super = scales.view(*upper.shape, -1)
    lower = torch.where(above == 0, 0.0, by_super / above).round_().clamp_(-128, 127)
    if not torch.equal(lower * above, by_super):
        return None
    return lower.to(torch.int8).view_as(scales)


def _by_tile(array: Tensor) -> Tensor:
    """[N, n] -> [tiles, n, 16], zeros for rows that are not there."""
    padded = F.pad(array, (0, 0, 0, -len(array) % TILE))
    return padded.view(-1, TILE, array.shape[1]).transpose(1, 2).contiguous()


def _in_tiles(weight: CodedWeight, meaning: _Meaning) -> Tensor:
    """The codes, uint8 [tiles, bytes of a tile]."""
    num_rows = len(weight.packed)
    row_bytes = weight.padded // 16 * _BYTES_OF_16[meaning.coding]
    tiles = torch.zeros((-(-num_rows // TILE), row_bytes * TILE), dtype=torch.uint8)
    for begin, codes in _rows_of_codes(weight):
        if meaning.offset:
            codes = codes + meaning.offset
        packed = F.pad(_packed(codes, meaning.coding), (0, 0, 0, -len(codes) % TILE))
        # A vector has 4 bytes of every row.
        fours = packed.view(torch.int32).view(-1, TILE, row_bytes // 4).transpose(1, 2)
        end = begin + fours.shape[0]
        tiles[begin:end].view(torch.int32).view(-1, row_bytes // 4, TILE).copy_(fours)
    return tiles


def _rows_of_codes(weight: CodedWeight) -> Iterator[tuple[int, Tensor]]:
    """(tile that they begin with, codes uint8 [rows, padded inputs])."""
    for begin in range(0, len(weight.packed), _ROWS_AT_ONCE):
        yield begin // TILE, weight.codes(slice(begin, begin + _ROWS_AT_ONCE))


def _packed(codes: Tensor, coding: Coding) -> Tensor:
    """uint8 [M, inputs], each below 2 ** bits -> the bytes of rows."""
    if coding is Coding.BYTES:
        return codes
    low = codes & 15
    pairs = low.view(len(codes), -1, 2, 4)
    halves = pairs[:, :, 0] | pairs[:, :, 1] << 4
    if coding is not Coding.SIX:
        return halves.flatten(1)
    upper = (codes >> 4).view(len(codes), -1, 4, 4)
    bits = upper[:, :, 0] | upper[:, :, 1] << 2 | upper[:, :, 2] << 4 | upper[:, :, 3] << 6
    return torch.cat((halves.view(len(codes), -1, 8), bits.view(len(codes), -1, 4)), 2).flatten(1)


def _unpacked(packed: Tensor, coding: Coding) -> Tensor:
    """``_packed`` undone."""
    if coding is Coding.BYTES:
        return packed
    blocks = packed.view(len(packed), -1, 3 if coding is Coding.SIX else 2, 4)
    halves = blocks[:, :, :2]
    codes = torch.stack((halves & 15, halves >> 4), 3).view(len(packed), -1, 4, 4)
    if coding is Coding.SIX:
        steps = torch.tensor((0, 2, 4, 6), dtype=torch.uint8)
        codes = codes | (blocks[:, :, 2:] >> steps[:, None] & 3) << 4
    return codes.flatten(1)
