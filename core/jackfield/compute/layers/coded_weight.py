"""A weight stored as small codes, whatever the format: the one layout that kernels multiply by.

weight[n, k] = table[code[n, k]] * scale[n, k // group] + shift[n, k // group]

Integers of 4 and 8 bits, with or without zero points, and 4-bit and 8-bit floating-point numbers
and quantiles are all of this form; a quantization method repacks its checkpoint's tensors to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.native import WHOLE_ROW, Codes, code_kernels_for

_BLOCK = 64
"""Inputs whose 4-bit codes are interleaved: the first 32 in the low halves of 32 bytes."""

_BY_ROW = ("packed", "scales", "shifts")


@dataclass(frozen=True)
class CodedWeight:
    """[N, K] numbers as packed codes.

    ``packed`` uint8 [N, P * bits / 8], P being K rounded up to whole blocks and groups; ``table``
    float32 [2 ** bits], None where the codes are signed 8-bit integers; ``scales`` and ``shifts``
    float32 [N, P / group_size].
    """

    packed: Tensor
    table: Tensor | None
    scales: Tensor
    shifts: Tensor | None
    bits: int
    group_size: int
    inputs: int

    @classmethod
    def pack(
        cls,
        codes: Tensor,
        scales: Tensor,
        *,
        bits: int,
        table: Tensor | None = None,
        shifts: Tensor | None = None,
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
        return cls(packed.contiguous(), float_table, scales, wide, bits, group, inputs)

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
                    shifts=None if piece.shifts is None else _room(piece.shifts, num_rows),
                    bits=piece.bits,
                    group_size=piece.group_size,
                    inputs=piece.inputs,
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
        arrays = (self.packed, self.table, self.scales, self.shifts)
        return sum(array.nbytes for array in arrays if array is not None)

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        table = None if self.table is None else self.table.to(device)
        shifts = None if self.shifts is None else self.shifts.to(device)
        return replace(
            self,
            packed=self.packed.to(device),
            table=table,
            scales=self.scales.to(device),
            shifts=shifts,
        )

    def decode(self, dtype: torch.dtype) -> Tensor:
        """The numbers, [N, K], rounded once."""
        codes = self.packed
        if self.bits == 4:
            halves = codes.view(len(codes), -1, 1, _BLOCK // 2)
            codes = torch.cat((halves & 15, halves >> 4), 2)
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
        # Groups that are no power of 2 would cost the kernels a division for every number.
        padded = self.packed.shape[1] * 8 // self.bits
        if self.group_size == padded:
            log_group = WHOLE_ROW
        elif self.group_size >= 16 and self.group_size & (self.group_size - 1) == 0:
            log_group = self.group_size.bit_length() - 1
        else:
            return None
        arrays = (self.packed, self.table, self.scales, self.shifts)
        return Codes(*arrays, (len(self.packed), padded), log_group, self.bits)


def _room(like: Tensor, num_rows: int) -> Tensor:
    return like.new_empty((num_rows, *like.shape[1:]))
