"""What the blocks of GGUF files mean, type by type.

Facts: the block structures of ggml (ggml-common.h) and what their fields stand for
(ggml-quants.c). Every type has a place in ``CodedWeight``'s layout with exactly its numbers: the
scales and minima of K types, two levels in the file, are multiplied out, and the upper ones kept
beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield_quantization.number_formats import e2m1, powers_of_2, signed_integers

_NUMBERS_AT_ONCE = 1 << 22
_IQ4 = (
    *(-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0),
    *(1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0),
)


class _Groups(NamedTuple):
    """Blocks as codes [N, B, block], a byte each, with scales and shifts [N, B, groups]. Without a
    table the codes are signed bytes."""

    codes: Tensor
    scales: Tensor
    shifts: Tensor | None = None
    table: Tensor | None = None
    upper_scales: Tensor | None = None
    upper_shifts: Tensor | None = None
    """float32 [N, B, 1], exact in float16."""


def encode(kind: str, rows: Tensor, block_bytes: int) -> CodedWeight:
    """uint8 [N, bytes of a row] of the type ``kind`` -> the weight [N, K]."""
    blocks = rows.view(len(rows), -1, block_bytes)
    return CodedWeight.join(_pieces(_READERS[kind], blocks), len(rows))


def _pieces(read: Callable[[Tensor], _Groups], blocks: Tensor) -> Iterator[CodedWeight]:
    """A few rows at a time: unpacked codes of a whole head would need as much again."""
    step = max(1, _NUMBERS_AT_ONCE // (blocks[0].numel() * 2))
    for piece in torch.split(blocks, step):
        found = read(piece)
        num_rows = len(piece)
        yield CodedWeight.pack(
            found.codes.reshape(num_rows, -1),
            found.scales.reshape(num_rows, -1),
            bits=8 if found.table is None else 4,
            table=found.table,
            shifts=None if found.shifts is None else found.shifts.reshape(num_rows, -1),
            upper_scales=None if found.upper_scales is None else found.upper_scales[..., 0].half(),
            upper_shifts=None if found.upper_shifts is None else found.upper_shifts[..., 0].half(),
        )


def _half(blocks: Tensor, begin: int) -> Tensor:
    # The float16 at this byte of each block, float32 [N, B, 1].
    return blocks[..., begin : begin + 2].contiguous().view(torch.float16).float()


def _rows(array: Tensor, *sizes: int) -> Tensor:
    """The last dimension as several."""
    return array.reshape(*array.shape[:-1], *sizes)


def _nibbles(packed: Tensor) -> Tensor:
    """[..., n] -> [..., 2 n]: all low halves, then all high ones."""
    return torch.cat((packed & 15, packed >> 4), -1)


def _bits(packed: Tensor, width: int) -> Tensor:
    """[..., n] -> [..., 8 / width, n]: the lowest ``width`` bits of all bytes, then the next."""
    steps = torch.arange(0, 8, width, dtype=torch.uint8, device=packed.device)
    found: Tensor = (packed[..., None, :] >> steps[:, None]) & (2**width - 1)
    return found


def _integers(blocks: Tensor, *, less: int = 0) -> Tensor:
    """float32 [16]: what a 4-bit code stands for, itself less a number."""
    return torch.arange(16.0, device=blocks.device) - less


def _q4_0(blocks: Tensor) -> _Groups:
    table = signed_integers().to(blocks.device)
    return _Groups(_nibbles(blocks[..., 2:]), _half(blocks, 0), table=table)


def _q4_1(blocks: Tensor) -> _Groups:
    codes = _nibbles(blocks[..., 4:])
    return _Groups(codes, _half(blocks, 0), _half(blocks, 2), _integers(blocks))


def _fifth_bits(packed: Tensor) -> Tensor:
    # [N, B, 4], 32 bits from the lowest of the first byte on -> [N, B, 32].
    return _bits(packed, 1).transpose(-1, -2).flatten(-2)


def _q5_0(blocks: Tensor) -> _Groups:
    codes = _nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6]) << 4
    return _Groups(codes.view(torch.int8) - 16, _half(blocks, 0))


def _q5_1(blocks: Tensor) -> _Groups:
    codes = _nibbles(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8]) << 4
    return _Groups(codes.view(torch.int8), _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Tensor) -> _Groups:
    return _Groups(blocks[..., 2:].view(torch.int8), _half(blocks, 0))


def _q2_k(blocks: Tensor) -> _Groups:
    packed = blocks[..., :16]
    codes = _bits(_rows(blocks[..., 16:80], 2, 32), 2)
    upper = (_half(blocks, 80), -_half(blocks, 82))
    return _Groups(
        codes, upper[0] * (packed & 15), upper[1] * (packed >> 4), _integers(blocks), *upper
    )


def _q3_k(blocks: Tensor) -> _Groups:
    low = _bits(_rows(blocks[..., 32:96], 2, 32), 2)
    high = _rows(_bits(blocks[..., :32], 1).flatten(-2), 2, 4, 32)
    packed = blocks[..., 96:108]
    upper = _bits(packed[..., 8:], 2).flatten(-2)
    scales = (_nibbles(packed[..., :8]) | upper << 4).view(torch.int8) - 32
    table = _integers(blocks, less=4)
    upper = _half(blocks, 108)
    return _Groups(low | high << 2, upper * scales, table=table, upper_scales=upper)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [N, B, 12] -> two times 8 numbers of 6 bits."""
    first, second, third = _rows(packed, 3, 4).unbind(-2)
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), -1)
    minima = torch.cat((second & 63, third >> 4 | second >> 6 << 4), -1)
    return scales, minima


def _q4_k(blocks: Tensor) -> _Groups:
    scales, minima = _scales_and_minima(blocks[..., 4:16])
    codes = _nibbles(_rows(blocks[..., 16:], 4, 32))
    upper = (_half(blocks, 0), -_half(blocks, 2))
    return _Groups(codes, upper[0] * scales, upper[1] * minima, _integers(blocks), *upper)


def _q5_k(blocks: Tensor) -> _Groups:
    scales, minima = _scales_and_minima(blocks[..., 4:16])
    low = _rows(_nibbles(_rows(blocks[..., 48:], 4, 32)), 2, 32)
    high = _rows(_bits(blocks[..., 16:48], 1).flatten(-2), 4, 2, 32)
    codes = (low | high << 4).view(torch.int8)
    upper = (_half(blocks, 0), -_half(blocks, 2))
    return _Groups(codes, upper[0] * scales, upper[1] * minima, None, *upper)


def _q6_k(blocks: Tensor) -> _Groups:
    low = _rows(_nibbles(_rows(blocks[..., :128], 2, 64)), 4, 32)
    high = _bits(_rows(blocks[..., 128:192], 2, 32), 2)
    codes = (low | high << 4).view(torch.int8) - 32
    upper = _half(blocks, 208)
    scales = upper * blocks[..., 192:208].view(torch.int8)
    return _Groups(codes, scales, upper_scales=upper)


def _iq4_nl(blocks: Tensor) -> _Groups:
    return _Groups(
        _nibbles(blocks[..., 2:]), _half(blocks, 0), table=torch.tensor(_IQ4, device=blocks.device)
    )


def _iq4_xs(blocks: Tensor) -> _Groups:
    low = torch.stack((blocks[..., 4:8] & 15, blocks[..., 4:8] >> 4), -1).flatten(-2)
    high = _bits(blocks[..., 2:4], 2).transpose(-1, -2).flatten(-2)
    scales = (low | high << 4).view(torch.int8) - 32
    codes = _nibbles(_rows(blocks[..., 8:], 8, 16))
    table = torch.tensor(_IQ4, device=blocks.device)
    upper = _half(blocks, 0)
    return _Groups(codes, upper * scales, table=table, upper_scales=upper)


def _mxfp4(blocks: Tensor) -> _Groups:
    table = e2m1().to(blocks.device)
    return _Groups(_nibbles(blocks[..., 1:]), powers_of_2(blocks[..., :1]), table=table)


_READERS: Mapping[str, Callable[[Tensor], _Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
}
