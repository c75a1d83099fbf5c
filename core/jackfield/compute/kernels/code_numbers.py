"""Codes of 4 and 8 bits to numbers, two at a time in a register: what they cost decides everything.

A product of one row is bound by reading the weight only while a number takes less than four
instructions; a load from a table in memory, or a conversion, takes more. So each kind of code has
a few logical instructions of its own, in PTX; the interpreter of the tests, which has none, looks
the numbers up in a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import torch
import triton
import triton.language as tl

# lop3 tables: (a & b) | c, (a & b) ^ c.
_AND_OR, _AND_XOR = 0xEA, 0x6A


class Scaling(IntEnum):
    """What is done to numbers at once: nothing, times a scale, plus a shift."""

    NONE = 0
    SCALE = 1
    SHIFT = 2


def _program(outputs: int, lines: Sequence[str], scaling: Scaling, kind: str) -> str:
    # Outputs $0.., then the codes, then pairs of scales and then shifts for each two outputs.
    scale, shift = outputs + 1, outputs + 1 + outputs // 2
    for o in range(outputs if scaling else 0):
        factor, term = f"${scale + o // 2}", f"${shift + o // 2}"
        if scaling is Scaling.SHIFT:
            line = f"fma.rn.{kind} ${o}, ${o}, {factor}, {term};"
        else:
            line = _multiply(kind, f"${o}", f"${o}", factor)
        lines = (*lines, line)
    body = " ".join(lines).replace("CODES", f"${outputs}")
    names = ", ".join(("t", "u", "zero", "less", *(f"r{i}" for i in range(8))))
    constants = f"mov.b32 zero, {_MINUS_ZERO:#x}; mov.b32 less, {_MINUS_ONE:#x}; "
    return f"{{ .reg .b32 {names}; {constants if kind == _BFLOAT16 else ''}{body} }}"


# Before Hopper two bfloat16 are only multiplied and added in one instruction, which rounds once.
_BFLOAT16, _MINUS_ZERO, _MINUS_ONE = "bf16x2", 0x80008000, 0xBF80BF80


def _multiply(kind: str, out: str, a: str, b: str) -> str:
    if kind == _BFLOAT16:
        return f"fma.rn.{kind} {out}, {a}, {b}, zero;"
    return f"mul.{kind} {out}, {a}, {b};"


def _subtract(kind: str, out: str, a: str, b: str) -> str:
    if kind == _BFLOAT16:
        return f"fma.rn.{kind} {out}, {b}, less, {a};"
    return f"sub.{kind} {out}, {a}, {b};"


def integers_of_4_bits(dtype: torch.dtype, scaling: Scaling) -> str:
    """Codes that stand for code - 8."""
    # A number with a wide exponent whose lowest bits are the code; 128 or 1024 more than it.
    kind, magic, less = _kind(dtype), *_magic(dtype, 0x43004300, 0x64006400, 8)
    lines = [f"mov.b32 u, {less:#x};"]
    for o in range(4):
        source = "CODES" if o == 0 else "t"
        if o:
            lines.append(f"shr.b32 t, CODES, {4 * o};")
        lines.append(f"lop3.b32 t, {source}, 0x000f000f, {magic:#x}, {_AND_OR:#x};")
        lines.append(_subtract(kind, f"${o}", "t", "u"))
    return _program(4, lines, scaling, kind)


def integers_of_8_bits(dtype: torch.dtype, scaling: Scaling) -> str:
    """Signed bytes."""
    kind = _kind(dtype)
    lines = []
    for o in range(2):
        source = "CODES" if o == 0 else "t"
        if o:
            lines.append("shr.b32 t, CODES, 8;")
        if dtype is torch.bfloat16:
            # 128 + the low 7 bits, less 128, or 256 for a negative one: bit 7 is the exponent's.
            lines += (
                f"lop3.b32 u, {source}, 0x007f007f, 0x43004300, {_AND_OR:#x};",
                f"lop3.b32 t, {source}, 0x00800080, 0x43004300, {_AND_OR:#x};",
                _subtract(kind, f"${o}", "u", "t"),
            )
        else:
            lines += (
                f"lop3.b32 t, {source}, 0x00ff00ff, 0x64806480, {_AND_XOR:#x};",
                "mov.b32 u, 0x64806480;",
                _subtract(kind, f"${o}", "t", "u"),
            )
    return _program(2, lines, scaling, kind)


def floats_of_8_bits(dtype: torch.dtype, exponent_bits: int, scaling: Scaling) -> str:
    """E4M3 or E5M2: the exponent moves to where the wider format has its lowest bits."""
    kind = _kind(dtype)
    wide_bits, wide_bias = (8, 127) if dtype is torch.bfloat16 else (5, 15)
    shift = wide_bits - exponent_bits
    more = wide_bias - (2 ** (exponent_bits - 1) - 1)
    # 2 ** more as the wide format has it.
    power = (more + wide_bias) << (15 - wide_bits)
    lines = [f"mov.b32 u, {power << 16 | power:#x};"]
    for o, source in ((1, "CODES"), (0, "r0")):
        if o == 0:
            lines.append("shl.b32 r0, CODES, 8;")
        if shift:
            lines += (
                f"and.b32 t, {source}, 0x7f007f00;",
                f"shr.b32 t, t, {shift};",
                f"lop3.b32 t, {source}, 0x80008000, t, {_AND_OR:#x};",
                _multiply(kind, f"${o}", "t", "u"),
            )
        else:
            lines.append(f"and.b32 ${o}, {source}, 0xff00ff00;")
    return _program(2, lines, scaling, kind)


def floats_of_4_bits(dtype: torch.dtype, scaling: Scaling) -> str:
    """E2M1, as ``floats_of_8_bits``."""
    kind = _kind(dtype)
    mantissa_bits, wide_bias = (7, 127) if dtype is torch.bfloat16 else (10, 15)
    # Three bits of a magnitude end where the wide format's exponent begins; 2 ** (bias - 1).
    place, power = mantissa_bits - 1, (2 * wide_bias - 1) << mantissa_bits
    lines = [f"mov.b32 u, {power << 16 | power:#x};"]
    for o in range(4):
        magnitude, sign = place - 4 * o, 12 - 4 * o
        lines += (
            f"{'shl' if magnitude > 0 else 'shr'}.b32 t, CODES, {abs(magnitude)};",
            f"and.b32 t, t, {(7 << place) * 0x10001:#x};",
            f"shl.b32 r0, CODES, {sign};",
            f"lop3.b32 t, r0, 0x80008000, t, {_AND_OR:#x};",
            _multiply(kind, f"${o}", "t", "u"),
        )
    return _program(4, lines, scaling, kind)


def table_of_16(entries: Sequence[float], dtype: torch.dtype, scaling: Scaling) -> str:
    """Any 16 numbers. Each is looked up as two bytes, four codes at a time."""
    stored = torch.tensor(entries, dtype=torch.float64).to(dtype)
    words = stored.view(torch.int16).to(torch.int32) & 0xFFFF
    low, high = _four_bytes(words & 0xFF), _four_bytes(words >> 8)
    # The first two codes of both numbers to the lower half, the others to the upper one.
    lines = ["prmt.b32 r0, CODES, CODES, 0x3120;"]
    for half in range(2):
        if half:
            lines.append("shr.b32 r0, r0, 16;")
        # The lowest three bits choose among 8 bytes, the fourth between the two results.
        lines += (
            "and.b32 t, r0, 0x7777;",
            "and.b32 u, r0, 0x8888;",
            "shr.b32 u, u, 1;",
            "or.b32 u, u, 0x3210;",
        )
        for place, table in (("r1", low), ("r2", high)):
            for part in range(2):
                first, second = table[2 * part], table[2 * part + 1]
                lines.append(f"mov.b32 r3, {first:#x}; mov.b32 r4, {second:#x};")
                lines.append(f"prmt.b32 r{5 + part}, r3, r4, t;")
            lines.append(f"prmt.b32 {place}, r5, r6, u;")
        lines.append(f"prmt.b32 ${2 * half}, r1, r2, 0x6240;")
        lines.append(f"prmt.b32 ${2 * half + 1}, r1, r2, 0x7351;")
    return _program(4, lines, scaling, _kind(dtype))


def _kind(dtype: torch.dtype) -> str:
    return _BFLOAT16 if dtype is torch.bfloat16 else "f16x2"


def _magic(dtype: torch.dtype, bfloat16: int, float16: int, zero: int) -> tuple[int, int]:
    magic = bfloat16 if dtype is torch.bfloat16 else float16
    return magic, magic | zero << 16 | zero


def _four_bytes(values: torch.Tensor) -> list[int]:
    return [
        sum(int(byte) << 8 * place for place, byte in enumerate(four))
        for four in values.view(4, 4).tolist()
    ]


E4M3_AS_FLOAT16 = (
    "{ .reg .b32 t; .reg .b16 low, high; prmt.b32 t, $2, $2, 0x3120; mov.b32 {low, high}, t; "
    "cvt.rn.f16x2.e4m3x2 $0, low; cvt.rn.f16x2.e4m3x2 $1, high; }"
)
"""``floats_of_8_bits`` of float16 and 4 bits on a device that converts E4M3 itself: sm_89."""

PAIRS_OF_E4M3 = (
    "{ .reg .b16 low, high; mov.b32 {low, high}, $2; "
    "cvt.rn.f16x2.e4m3x2 $0, low; cvt.rn.f16x2.e4m3x2 $1, high; }"
)
"""Two words of two E4M3 codes to float16, without scales; unlike the others it gives the first
word's codes, lowest first, in the place of both words' lowest, and the second word's."""


@triton.jit
def _looked_up(
    words,
    scales,
    shifts,
    like,
    table,
    o: tl.constexpr,
    BITS: tl.constexpr,
    SCALING: tl.constexpr,
):
    numbers = tl.load(table + ((words.to(tl.int32) >> (BITS * o)) & (2**BITS - 1)))
    if SCALING >= 1:
        numbers = numbers * scales[o // 2]
    if SCALING == 2:
        numbers = numbers + shifts[o // 2]
    return numbers.to(like.dtype)


@triton.jit
def numbers_of(
    words,
    scales,
    shifts,
    like,
    table,
    ASM: tl.constexpr,
    BITS: tl.constexpr,
    SCALING: tl.constexpr,
):
    """Codes int16 to 16 / BITS tensors of numbers of their shape in the dtype of ``like``: the
    codes of the lowest bits, the next ones, and so on.
    Where they are scaled, ``scales`` and ``shifts`` have a tensor of that shape and dtype for each
    two of them. Without ASM they are looked up in ``table``, float32."""
    if ASM == "":
        a = _looked_up(words, scales, shifts, like, table, 0, BITS, SCALING)
        b = _looked_up(words, scales, shifts, like, table, 1, BITS, SCALING)
        if BITS == 8:
            return a, b
        else:
            c = _looked_up(words, scales, shifts, like, table, 2, BITS, SCALING)
            d = _looked_up(words, scales, shifts, like, table, 3, BITS, SCALING)
            return a, b, c, d
    elif BITS == 4:
        if SCALING == 0:
            return tl.inline_asm_elementwise(
                ASM,
                "=&r,=&r,=&r,=&r,r",
                [words],
                (like.dtype, like.dtype, like.dtype, like.dtype),
                True,
                2,
            )
        elif SCALING == 1:
            return tl.inline_asm_elementwise(
                ASM,
                "=&r,=&r,=&r,=&r,r,r,r",
                [words, scales[0], scales[1]],
                (like.dtype, like.dtype, like.dtype, like.dtype),
                True,
                2,
            )
        else:
            return tl.inline_asm_elementwise(
                ASM,
                "=&r,=&r,=&r,=&r,r,r,r,r,r",
                [words, scales[0], scales[1], shifts[0], shifts[1]],
                (like.dtype, like.dtype, like.dtype, like.dtype),
                True,
                2,
            )
    elif SCALING == 0:
        return tl.inline_asm_elementwise(
            ASM, "=&r,=&r,r", [words], (like.dtype, like.dtype), True, 2
        )
    elif SCALING == 1:
        return tl.inline_asm_elementwise(
            ASM, "=&r,=&r,r,r", [words, scales[0]], (like.dtype, like.dtype), True, 2
        )
    else:
        return tl.inline_asm_elementwise(
            ASM, "=&r,=&r,r,r,r", [words, scales[0], shifts[0]], (like.dtype, like.dtype), True, 2
        )
