"""Tensors in the blocks of GGUF files, packed as ggml's structures are documented and by nothing
of ours.

A packer takes a weight, float32 [N, K], and gives its bytes, uint8 [N, bytes of a row], and the
numbers that they stand for. It rounds to some scales that fit, not to the best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = Array
Bytes = Array
Packer = Callable[[Floats], tuple[Bytes, Floats]]

IQ4 = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
FP4 = np.concatenate((FP4, -FP4))


def raw(array: Array) -> Bytes:
    """[N, B] of some dtype -> its bytes, [N, B, size]."""
    return np.ascontiguousarray(array)[..., None].view(np.uint8)


def joined(*fields: Bytes) -> Bytes:
    """Fields [N, B, bytes] of each block -> rows."""
    blocks = np.concatenate(fields, -1)
    return blocks.reshape(len(blocks), -1)


def over(values: Array, steps: Array) -> Array:
    """Each group's values over its step; 0 where all of them are 0."""
    quotients: Array = values / np.where(steps == 0, 1, steps).astype(np.float32)[..., None]
    return quotients


def nearest(values: Array, table: Floats) -> Array:
    codes: Array = np.abs(values[..., None] - table).argmin(-1).astype(np.uint8)
    return codes


def pairs(codes: Array) -> Bytes:
    """Codes below 16, [..., 2 n]: code i and code n + i in one byte, i low."""
    half = codes.shape[-1] // 2
    packed: Bytes = codes[..., :half] | codes[..., half:] << 4
    return packed


def bit_rows(bits: Array) -> Bytes:
    """[..., 8, n] -> [..., n]: one bit of each row, the first row lowest."""
    packed: Bytes = np.packbits(bits, axis=-2, bitorder="little")
    return packed[..., 0, :]


def halves(values: Floats) -> Array:
    return values.astype(np.float16)


def blocks_of(weight: Floats, size: int) -> Floats:
    return weight.reshape(len(weight), -1, size)


def symmetric(weight: Floats, largest: int) -> tuple[Array, Array]:
    """A scale for each 32, and codes from -largest - 1 to largest."""
    blocks = blocks_of(weight, 32)
    scale = halves(np.abs(blocks).max(-1) / largest)
    codes = np.rint(over(blocks, scale))
    return scale, codes.clip(-largest - 1, largest).astype(np.int64)


def asymmetric(weight: Floats, largest: int) -> tuple[Array, Array, Array]:
    """A scale and a minimum for each 32, and codes from 0 to largest."""
    blocks = blocks_of(weight, 32)
    low, high = blocks.min(-1), blocks.max(-1)
    scale, least = halves((high - low) / largest), halves(low)
    steps = over(blocks - least.astype(np.float32)[..., None], scale)
    return scale, least, np.rint(steps).clip(0, largest).astype(np.uint8)


def scaled(codes: Array, scale: Array) -> Floats:
    return codes.astype(np.float32) * scale.astype(np.float32)[..., None]


def q4_0(weight: Floats) -> tuple[Bytes, Floats]:
    scale, codes = symmetric(weight, 7)
    stored = (codes + 8).astype(np.uint8)
    return joined(raw(scale), pairs(stored)), scaled(codes, scale)


def q4_1(weight: Floats) -> tuple[Bytes, Floats]:
    scale, least, codes = asymmetric(weight, 15)
    numbers = scaled(codes, scale) + least.astype(np.float32)[..., None]
    return joined(raw(scale), raw(least), pairs(codes)), numbers


def fifth_bits(codes: Array) -> Bytes:
    return np.packbits(codes >> 4, axis=-1, bitorder="little")


def q5_0(weight: Floats) -> tuple[Bytes, Floats]:
    scale, codes = symmetric(weight, 15)
    stored = (codes + 16).astype(np.uint8)
    packed = joined(raw(scale), fifth_bits(stored), pairs(stored & 15))
    return packed, scaled(codes, scale)


def q5_1(weight: Floats) -> tuple[Bytes, Floats]:
    scale, least, codes = asymmetric(weight, 31)
    packed = joined(raw(scale), raw(least), fifth_bits(codes), pairs(codes & 15))
    return packed, scaled(codes, scale) + least.astype(np.float32)[..., None]


def q8_0(weight: Floats) -> tuple[Bytes, Floats]:
    scale, codes = symmetric(weight, 127)
    return joined(raw(scale), codes.astype(np.int8).view(np.uint8)), scaled(codes, scale)


def two_levels(values: Floats, largest: int) -> tuple[Array, Array]:
    """[N, B, G] -> a float16 for each block and whole numbers up to largest."""
    whole = halves(np.abs(values).max(-1) / largest)
    return whole, np.rint(over(values, whole)).astype(np.int64)


def with_minima(
    weight: Floats, group: int, largest_code: int, largest_scale: int
) -> tuple[
    Array,
    Array,
    Array,
    Array,
    Array,
    Floats,
]:
    """Super-blocks of 256: d, dmin, scales and minima of the groups, codes [N, B, G, group], and
    the numbers."""
    groups = blocks_of(weight, 256).reshape(len(weight), -1, 256 // group, group)
    least = -groups.min(-1).clip(None, 0)
    d, scales = two_levels((groups.max(-1).clip(0) + least) / largest_code, largest_scale)
    dmin, minima = two_levels(least, largest_scale)
    step = scaled(scales, d)
    offset = scaled(minima, dmin)
    codes = np.rint(over(groups + offset[..., None], step))
    stored = codes.clip(0, largest_code).astype(np.uint8)
    numbers = stored * step[..., None] - offset[..., None]
    return d, dmin, scales.astype(np.uint8), minima.astype(np.uint8), stored, numbers


def without_minima(
    weight: Floats, group: int, most: int, least_scale: int
) -> tuple[Array, Array, Array, Floats]:
    """Super-blocks with signed scales: d, scales, codes from -most - 1 to most, the numbers. Every
    other scale is negative."""
    groups = blocks_of(weight, 256).reshape(len(weight), -1, 256 // group, group)
    values = np.abs(groups).max(-1) / most
    values[..., ::2] *= -1
    d, scales = two_levels(values, -least_scale - 1)
    step = scaled(scales, d)
    codes = np.rint(over(groups, step)).clip(-most - 1, most)
    return d, scales, codes.astype(np.int64), (codes * step[..., None]).astype(np.float32)


def quarters(codes: Array) -> Bytes:
    """Codes of 2 bits, [N, B, 256]: each 128 in 32 bytes, code 32 j + i in bits 2 j of byte i."""
    rows = codes.reshape(*codes.shape[:2], 2, 4, 32)
    columns = np.moveaxis(rows, -2, 0)
    packed: Bytes = columns[0] | columns[1] << 2 | columns[2] << 4 | columns[3] << 6
    return packed.reshape(*codes.shape[:2], 64)


def q2_k(weight: Floats) -> tuple[Bytes, Floats]:
    d, dmin, scales, minima, codes, numbers = with_minima(weight, 16, 3, 15)
    flat = codes.reshape(*codes.shape[:2], 256)
    return joined(scales | minima << 4, quarters(flat), raw(d), raw(dmin)), numbers


def q3_k(weight: Floats) -> tuple[Bytes, Floats]:
    d, scales, codes, numbers = without_minima(weight, 16, 3, -32)
    flat = (codes + 4).astype(np.uint8).reshape(*codes.shape[:2], 256)
    high = bit_rows((flat >> 2).reshape(*flat.shape[:2], 8, 32))
    offset = (scales + 32).astype(np.uint8)
    upper = (offset >> 4).reshape(*offset.shape[:2], 4, 4)
    tops = upper[..., 0, :] | upper[..., 1, :] << 2 | upper[..., 2, :] << 4 | upper[..., 3, :] << 6
    packed = joined(high, quarters(flat & 3), pairs(offset & 15), tops, raw(d))
    return packed, numbers


def twelve_bytes(scales: Array, minima: Array) -> Bytes:
    """Eight scales and eight minima of 6 bits: the first four of each in the low bits of bytes 0
    to 7, the low halves of the rest in bytes 8 to 11, their high bits above the first ones."""
    first = scales[..., :4] | scales[..., 4:] >> 4 << 6
    second = minima[..., :4] | minima[..., 4:] >> 4 << 6
    third = scales[..., 4:] & 15 | (minima[..., 4:] & 15) << 4
    return np.concatenate((first, second, third), -1)


def q4_k(weight: Floats) -> tuple[Bytes, Floats]:
    d, dmin, scales, minima, codes, numbers = with_minima(weight, 32, 15, 63)
    packed = pairs(codes.reshape(*codes.shape[:2], 4, 64)).reshape(*codes.shape[:2], 128)
    return joined(raw(d), raw(dmin), twelve_bytes(scales, minima), packed), numbers


def q5_k(weight: Floats) -> tuple[Bytes, Floats]:
    d, dmin, scales, minima, codes, numbers = with_minima(weight, 32, 31, 63)
    low = pairs((codes & 15).reshape(*codes.shape[:2], 4, 64)).reshape(*codes.shape[:2], 128)
    high = bit_rows(codes >> 4)
    return joined(raw(d), raw(dmin), twelve_bytes(scales, minima), high, low), numbers


def q6_k(weight: Floats) -> tuple[Bytes, Floats]:
    d, scales, codes, numbers = without_minima(weight, 16, 31, -128)
    flat = (codes + 32).astype(np.uint8).reshape(*codes.shape[:2], 256)
    low = pairs((flat & 15).reshape(*flat.shape[:2], 2, 128)).reshape(*flat.shape[:2], 128)
    signed = scales.astype(np.int8).view(np.uint8)
    return joined(low, quarters(flat >> 4), signed, raw(d)), numbers


def iq4_nl(weight: Floats) -> tuple[Bytes, Floats]:
    blocks = blocks_of(weight, 32)
    scale = halves(np.abs(blocks).max(-1) / 127)
    codes = nearest(over(blocks, scale), IQ4)
    return joined(raw(scale), pairs(codes)), scaled(IQ4[codes], scale)


def iq4_xs(weight: Floats) -> tuple[Bytes, Floats]:
    groups = blocks_of(weight, 256).reshape(len(weight), -1, 8, 32)
    values = np.abs(groups).max(-1) / 113
    values[..., ::2] *= -1
    d, scales = two_levels(values, 31)
    step = scaled(scales, d)
    codes = nearest(over(groups, step), IQ4)
    offset = (scales + 32).astype(np.uint8)
    low = offset[..., ::2] & 15 | (offset[..., 1::2] & 15) << 4
    tops = (offset.astype(np.uint16) >> 4) << (2 * np.arange(8, dtype=np.uint16))
    high = raw(tops.sum(-1).astype(np.uint16))
    packed = pairs(codes).reshape(*codes.shape[:2], 128)
    return joined(raw(d), high, low, packed), IQ4[codes] * step[..., None]


def mxfp4(weight: Floats) -> tuple[Bytes, Floats]:
    blocks = blocks_of(weight, 32)
    exponents = np.ceil(np.log2(np.maximum(np.abs(blocks).max(-1), 1e-9) / 6))
    step = np.exp2(exponents).astype(np.float32)
    codes = nearest(over(blocks, step), FP4)
    return joined(raw((exponents + 127).astype(np.uint8)), pairs(codes)), scaled(FP4[codes], step)


def plain(dtype: type[np.generic]) -> Packer:
    def pack(weight: Floats) -> tuple[Bytes, Floats]:
        stored = weight.astype(dtype)
        return stored.view(np.uint8).reshape(len(weight), -1), stored.astype(np.float32)

    return pack


def bf16(weight: Floats) -> tuple[Bytes, Floats]:
    bits = weight.view(np.uint32)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return upper.astype("<u2").view(np.uint8), (upper << 16).view(np.float32)


# ggml's number of each type, and its packer.
TYPES: dict[str, tuple[int, Packer]] = {
    "F32": (0, plain(np.float32)),
    "F16": (1, plain(np.float16)),
    "BF16": (30, bf16),
    "Q4_0": (2, q4_0),
    "Q4_1": (3, q4_1),
    "Q5_0": (6, q5_0),
    "Q5_1": (7, q5_1),
    "Q8_0": (8, q8_0),
    "Q2_K": (10, q2_k),
    "Q3_K": (11, q3_k),
    "Q4_K": (12, q4_k),
    "Q5_K": (13, q5_k),
    "Q6_K": (14, q6_k),
    "IQ4_NL": (20, iq4_nl),
    "IQ4_XS": (23, iq4_xs),
    "MXFP4": (39, mxfp4),
}
SUPER_BLOCKS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")


def pack(kind: str, weight: Floats) -> tuple[Bytes, Floats]:
    """The bytes of a weight and its numbers, float32 [N, K]."""
    packed, numbers = TYPES[kind][1](weight)
    return packed, numbers.astype(np.float32).reshape(weight.shape)
