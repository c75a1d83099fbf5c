"""Keys and values as floating-point numbers of 8 bits: how they are rounded, and their scales."""

from __future__ import annotations

import torch
from torch import Tensor

from jackfield.contracts.attention import KVLayer

KV_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
_ROOM = 4.0
"""How much larger than what was measured a number may be before it is cut off. Numbers of 8 bits
keep their precision over 15 octaves and more, so that room costs nothing."""


def is_eight_bit(dtype: torch.dtype) -> bool:
    """Whether pages of this dtype have scales."""
    return dtype in KV_DTYPES


def as_bytes(pages: Tensor) -> Tensor:
    """Pages of 8-bit floats as uint8, others as they are: most operations know no such floats."""
    return pages.view(torch.uint8) if is_eight_bit(pages.dtype) else pages


def rounded(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """x / scale in ``dtype``, an 8-bit float; too large numbers and NaN as the largest one."""
    largest = torch.finfo(dtype).max
    quotient = (x.float() / scale).nan_to_num_(nan=largest, posinf=largest, neginf=-largest)
    return quotient.clamp_(-largest, largest).to(dtype)


def measure(kv: KVLayer, k: Tensor, v: Tensor) -> None:
    """Sets the scales of a layer so that k and v fit, with room: powers of 2, by which nothing is
    rounded. Does not wait for the device."""
    assert kv.scales is not None, "a layer that measures has scales"
    target = torch.finfo(kv.key.dtype).max / _ROOM
    largest = torch.stack([x.float().nan_to_num(0.0, 0.0, 0.0).abs().amax() for x in (k, v)])
    kv.scales.copy_(torch.exp2((largest.clamp_min(1e-6) / target).log2().ceil()))
