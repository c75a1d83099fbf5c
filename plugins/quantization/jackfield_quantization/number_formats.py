"""What codes of small floating-point formats mean, and numbers packed into larger integers."""

from __future__ import annotations

import torch
from torch import Tensor


def e2m1() -> Tensor:
    """float32 [16]: FP4 of the OCP Microscaling specification 1.0, sign in the highest bit."""
    positive = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    return torch.cat((positive, -positive))


def eight_bit_floats(dtype: torch.dtype) -> Tensor:
    """float32 [256]: the numbers of an 8-bit floating-point dtype of torch; NaN becomes 0."""
    return torch.arange(256).to(torch.uint8).view(dtype).float().nan_to_num(nan=0.0)


def small_floats(*, exponent_bits: int, mantissa_bits: int) -> Tensor:
    """float32 [2 ** (bits)]: the numbers of a float without sign, infinities and NaN, ascending;
    the exponent's bias is half its range."""
    codes = torch.arange(2.0 ** (exponent_bits + mantissa_bits))
    exponents = torch.div(codes, 2**mantissa_bits, rounding_mode="floor")
    fractions = codes % 2**mantissa_bits / 2**mantissa_bits
    powers = torch.exp2(exponents.clamp_min(1) - (2 ** (exponent_bits - 1) - 1))
    numbers: Tensor = (fractions + (exponents > 0)) * powers
    return numbers


def powers_of_2(exponents: Tensor) -> Tensor:
    """E8M0 bytes -> float32: 2 ** (byte - 127)."""
    return torch.exp2(exponents.float() - 127)


def signed_integers() -> Tensor:
    """float32 [16]: 4-bit codes that stand for -8 .. 7, offset binary."""
    return torch.arange(16.0) - 8


def unpack(packed: Tensor, bits: int, dim: int) -> Tensor:
    """int32 -> uint8: 32 / ``bits`` numbers from each, the lowest bits first, along ``dim``.
    Where that is no whole number, 32 of them are one string of ``bits`` integers."""
    moved = packed.movedim(dim, -1)
    if 32 % bits:
        return _unpack_string(moved, bits).movedim(-1, dim)
    shifts = torch.arange(0, 32, bits, device=packed.device, dtype=torch.int32)
    numbers: Tensor = ((moved[..., None] >> shifts) & (2**bits - 1)).to(torch.uint8)
    return numbers.flatten(-2).movedim(-1, dim)


def _unpack_string(packed: Tensor, bits: int) -> Tensor:
    words = packed.reshape(*packed.shape[:-1], -1, bits).to(torch.int64) & 0xFFFFFFFF
    places = torch.arange(32, device=packed.device) * bits
    first, offset = places // 32, places % 32
    low = words[..., first] >> offset
    following = words[..., (first + 1).clamp_max(bits - 1)] << (32 - offset)
    whole = torch.where(offset > 32 - bits, low | following, low)
    numbers: Tensor = (whole & (2**bits - 1)).to(torch.uint8)
    return numbers.flatten(-2)


def unpack_halves(packed: Tensor, *, low_first: bool) -> Tensor:
    """uint8 [..., K / 2] -> uint8 [..., K]: two numbers from each byte."""
    low, high = packed & 15, packed >> 4
    pair = (low, high) if low_first else (high, low)
    return torch.stack(pair, -1).flatten(-2)
