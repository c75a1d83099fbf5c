"""GPTQ: the rounding error of a column is made good by the columns that are still to be rounded.

After arXiv 2210.17323. ``hessian`` is the sum of x x^T over the calibration's inputs x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jackfield.quantizer.recipe import Recipe
from jackfield.quantizer.rounding import Scales, find_scales

_BLOCK = 128
_DAMPING = 0.01


def gptq(
    weight: Tensor, hessian: Tensor, recipe: Recipe, dtype: torch.dtype
) -> tuple[Tensor, Scales]:
    """float32 weight [N, K], hessian [K, K] -> codes float32 [N, K] and their scales."""
    outputs, inputs = weight.shape
    groups = recipe.groups(inputs)
    width = inputs // groups
    weight, hessian = weight.clone(), hessian.clone()
    unseen = hessian.diagonal() == 0
    hessian.diagonal()[unseen] = 1.0
    weight[:, unseen] = 0.0
    factor = _inverse_factor(hessian)
    codes = torch.empty_like(weight)
    scales = find_scales(weight, recipe, groups, dtype)
    scale, zero = scales.scale, scales.zero
    for begin in range(0, inputs, _BLOCK):
        end = min(begin + _BLOCK, inputs)
        errors = torch.zeros((outputs, end - begin), dtype=weight.dtype, device=weight.device)
        for column in range(begin, end):
            group = column // width
            if groups > 1 and column % width == 0:
                # The group's columns have taken over errors of those before: its extremes moved.
                renewed = find_scales(weight[:, column : column + width], recipe, 1, dtype)
                scale[:, group] = renewed.scale[:, 0]
                if zero is not None and renewed.zero is not None:
                    zero[:, group] = renewed.zero[:, 0]
            here = scales.of_group(group)
            rounded = here.codes(weight[:, column : column + 1])
            codes[:, column : column + 1] = rounded
            missed = weight[:, column] - here.numbers(rounded)[:, 0]
            error = missed / factor[column, column]
            rest = slice(column + 1, end)
            weight[:, rest] -= error[:, None] * factor[column, rest]
            errors[:, column - begin] = error
        weight[:, end:] -= errors @ factor[begin:end, end:]
    return codes, scales


def _inverse_factor(hessian: Tensor) -> Tensor:
    """The upper triangular U with U^T U = hessian^-1, of a slightly damped hessian."""
    mean = hessian.diagonal().mean()
    damped = hessian.clone()
    damped.diagonal().add_(_DAMPING * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper
