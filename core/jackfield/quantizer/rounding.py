"""Numbers of few bits for a weight: scales, codes, and what the codes stand for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jackfield.quantizer.recipe import Recipe

_FLOAT8 = torch.float8_e4m3fn
_FLOAT8_MAX = 448.0
_TINY = 1e-10


@dataclass(frozen=True, slots=True)
class Scales:
    """Of a weight [N, K]: ``scale`` float32 [N, G], and for asymmetric integers ``zero`` [N, G],
    the code (from ``low`` on) that stands for 0."""

    scale: Tensor
    zero: Tensor | None
    low: int
    high: int

    def of_group(self, group: int) -> Scales:
        """Those of one group."""
        zero = None if self.zero is None else self.zero[:, group, None]
        return Scales(self.scale[:, group, None], zero, self.low, self.high)

    def codes(self, weight: Tensor) -> Tensor:
        """float32 [N, K] -> the nearest codes, as float32 [N, K]; K a multiple of G."""
        scaled = _by_group(weight, self.scale.shape[1]) / self.scale[..., None]
        if self.high == 0:
            rounded = scaled.clamp(-_FLOAT8_MAX, _FLOAT8_MAX).to(_FLOAT8).float()
        else:
            if self.zero is not None:
                scaled = scaled + self.zero[..., None]
            rounded = scaled.round().clamp(self.low, self.high)
        return rounded.flatten(1)

    def numbers(self, codes: Tensor) -> Tensor:
        """What codes stand for, float32 [N, K]."""
        grouped = _by_group(codes, self.scale.shape[1])
        if self.zero is not None:
            grouped = grouped - self.zero[..., None]
        return (grouped * self.scale[..., None]).flatten(1)


def find_scales(weight: Tensor, recipe: Recipe, groups: int, dtype: torch.dtype) -> Scales:
    """From the extremes of each group of weight [N, K]; rounded to ``dtype``, as they are kept."""
    grouped = _by_group(weight.float(), groups)
    if recipe.method == "fp8":
        return Scales(_stored(grouped.abs().amax(-1) / _FLOAT8_MAX, dtype), None, 0, 0)
    low, high = (-8, 7) if recipe.method == "w4a16" else (-128, 127)
    if recipe.symmetric:
        scale = grouped.abs().amax(-1) / ((high - low) / 2)
        return Scales(_stored(scale, dtype), None, low, high)
    least, most = grouped.amin(-1).clamp(max=0.0), grouped.amax(-1).clamp(min=0.0)
    scale = _stored((most - least) / (high - low), dtype)
    zero = (low - least / scale).round().clamp(low, high)
    return Scales(scale, zero, low, high)


def _stored(scale: Tensor, dtype: torch.dtype) -> Tensor:
    return scale.clamp(min=_TINY).to(dtype).float()


def _by_group(matrix: Tensor, groups: int) -> Tensor:
    return matrix.view(len(matrix), groups, -1)
