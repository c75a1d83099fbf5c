"""A weight stored as small codes, whatever the format: the one layout that kernels multiply by.

weight[n, k] = table[code[n, k]] * scale[n, k // group] + shift[n, k // group]

Integers of 4 and 8 bits, with or without zero points, and 4-bit and 8-bit floating-point numbers
and quantiles are all of this form; a quantization method repacks its checkpoint's tensors to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.native import WHOLE_ROW, Codes, code_kernels_for

_BLOCK = 64
"""Inputs whose 4-bit codes are interleaved: the first 32 in the low halves of 32 bytes."""

_BY_ROW = ("packed", "scales", "shifts", "upper_scales", "upper_shifts")


@dataclass(frozen=True)
class CodedWeight:
    """[N, K] numbers as packed codes.

    ``packed`` uint8 [N, P * bits / 8], P being K rounded up to whole blocks and groups; ``table``
    float32 [2 ** bits], None where the codes are signed 8-bit integers; ``scales`` and ``shifts``
    float32 [N, P / group_size]. ``upper_scales`` and ``upper_shifts`` float16 [N, P / 256], where a
    format has such: scales and shifts are small integers times these.
    """

    packed: Tensor
    table: Tensor | None
    scales: Tensor
    shifts: Tensor | None
    bits: int
    group_size: int
    inputs: int
    upper_scales: Tensor | None = None
    upper_shifts: Tensor | None = None

    @classmethod
    def pack(
        cls,
        codes: Tensor,
        scales: Tensor,
        *,
        bits: int,
        table: Tensor | None = None,
        shifts: Tensor | None = None,
        upper_scales: Tensor | None = None,
        upper_shifts: Tensor | None = None,
    ) -> Self:
        """From codes [N, K], one an element: 0 .. 2 ** bits - 1, or int8 without a table. The
        group size follows from the scales' shape."""
        num_rows, inputs = codes.shape
        if inputs % scales.shape[1]:
            raise ValueError(f"{inputs} inputs are not {scales.shape[1]} groups of one size")
        group = inputs // scales.shape[1]
        packed = codes.view(torch.uint8) if codes.dtype is torch.int8 else codes.to(torch.uint8)
        missing = -inputs % _BLOCK
        if missing:
            # x is 0 there, whatever the codes mean.
            packed = F.pad(packed, (0, missing))
        if scales.shape[1] == 1:
            group += missing
        elif missing:
            more = -(-missing // group)
            packed = F.pad(packed, (0, more * group - missing))
            scales = F.pad(scales, (0, more))
            shifts = None if shifts is None else F.pad(shifts, (0, more))
        if bits == 4:
            halves = packed.view(num_rows, -1, 2, _BLOCK // 2)
            packed = (halves[:, :, 0] | halves[:, :, 1] << 4).reshape(num_rows, -1)
        wide = None if shifts is None else shifts.float().contiguous()
        float_table = None if table is None else table.float().contiguous()
        scales = scales.float().contiguous()
        upper = (upper_scales, upper_shifts)
        return cls(packed.contiguous(), float_table, scales, wide, bits, group, inputs, *upper)

    @classmethod
    def join(cls, pieces: Iterable[CodedWeight], num_rows: int) -> Self:
        """Pieces of one format, ``num_rows`` rows in all; one is there at a time."""
        whole: Self | None = None
        begin = 0
        for piece in pieces:
            if whole is None:
                if len(piece.packed) == num_rows:
                    return cls(*(getattr(piece, each.name) for each in fields(piece)))
                whole = cls(
                    packed=_room(piece.packed, num_rows),
                    table=piece.table,
                    scales=_room(piece.scales, num_rows),
                    shifts=_room(piece.shifts, num_rows),
                    bits=piece.bits,
                    group_size=piece.group_size,
                    inputs=piece.inputs,
                    upper_scales=_room(piece.upper_scales, num_rows),
                    upper_shifts=_room(piece.upper_shifts, num_rows),
                )
            end = begin + len(piece.packed)
            for name in _BY_ROW:
                target, source = getattr(whole, name), getattr(piece, name)
                if target is not None:
                    target[begin:end] = source
            begin = end
        if whole is None or begin != num_rows:
            raise ValueError(f"the pieces have {begin} rows of {num_rows}")
        return whole

    def select(self, rows: Tensor) -> Self:
        """Some rows, int64 [M]."""
        kept = {
            name: array.index_select(0, rows)
            for name in _BY_ROW
            if (array := getattr(self, name)) is not None
        }
        return replace(self, **kept)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.packed.shape[0], self.inputs

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        arrays = (getattr(self, name) for name in ("table", *_BY_ROW))
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def padded(self) -> int:
        """P, the inputs that rows have room for."""
        return self.packed.shape[1] * 8 // self.bits

    @property
    def log_group(self) -> int | None:
        """How kernels find the group of an input, by a shift; None where they would need a
        division for every number."""
        if self.group_size == self.padded:
            return WHOLE_ROW
        if self.group_size >= 16 and self.group_size & (self.group_size - 1) == 0:
            return self.group_size.bit_length() - 1
        return None

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        moved = {
            name: array.to(device)
            for name in ("table", *_BY_ROW)
            if (array := getattr(self, name)) is not None
        }
        return replace(self, **moved)

    def codes(self, rows: slice) -> Tensor:
        """The codes of some rows, uint8 [M, P]."""
        codes = self.packed[rows]
        if self.bits == 8:
            return codes
        halves = codes.view(len(codes), -1, 1, _BLOCK // 2)
        return torch.cat((halves & 15, halves >> 4), 2).flatten(1)

    def look_up(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """int64 [M] -> the numbers of these rows, [M, K], rounded once."""
        return self.select(rows).decode(dtype)

    def decode(self, dtype: torch.dtype) -> Tensor:
        """The numbers, [N, K], rounded once."""
        codes = self.codes(slice(None))
        entries = codes.view(torch.int8).float()
        if self.table is not None:
            entries = self.table[codes.long()]
        groups = entries.view(*self.scales.shape, self.group_size)
        numbers = groups * self.scales[..., None]
        if self.shifts is not None:
            numbers += self.shifts[..., None]
        return numbers.view(len(numbers), -1)[:, : self.inputs].to(dtype)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [T, K] -> x @ weight.T + bias, [T, N] in x's dtype."""
        kernels = None if x.is_cuda else code_kernels_for(x.dtype)
        codes = self._codes
        if kernels is None or codes is None:
            return F.linear(x, self.decode(x.dtype), bias)
        if codes.shape[1] != self.inputs:
            x = F.pad(x, (0, codes.shape[1] - self.inputs))
        out = kernels.multiply(x, codes)
        return out if bias is None else out.add_(bias)

    @cached_property
    def _codes(self) -> Codes | None:
        log_group = self.log_group
        if log_group is None:
            return None
        arrays = (self.packed, self.table, self.scales, self.shifts)
        return Codes(*arrays, (len(self.packed), self.padded), log_group, self.bits)


@overload
def _room(like: Tensor, num_rows: int) -> Tensor: ...
@overload
def _room(like: None, num_rows: int) -> None: ...
def _room(like: Tensor | None, num_rows: int) -> Tensor | None:
    return None if like is None else like.new_empty((num_rows, *like.shape[1:]))
