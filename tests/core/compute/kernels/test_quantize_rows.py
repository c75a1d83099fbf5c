from __future__ import annotations

import pytest
import tests.interpreter
import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.kernels.quantize_rows import (
    add_rms_norm_rounded,
    quantize_rows,
    silu_and_mul_rounded,
)
from jackfield.compute.kernels.scaled_rows import RoundedRows, Rounding

DEVICE = tests.interpreter.DEVICE
EPS = 1e-5
SHAPES = [(64, None), (96, None), (100, None), (384, 128)]


def random(*shape: int) -> Tensor:
    return torch.randn(shape).to(DEVICE, torch.bfloat16)


def assert_rounded(rounded: RoundedRows, expected: Tensor, rounding: Rounding) -> None:
    """E4M3 has 3 bits behind the point, and steps of 2 ** -9 below 2 ** -6."""
    length = rounding.stretch or expected.shape[1]
    stretches = expected.view(len(expected), -1, length)
    scales = rounded.scales.double()[..., None]
    if rounding.static is None:
        torch.testing.assert_close(
            scales, stretches.abs().amax(2, keepdim=True) / 448, rtol=1e-5, atol=0
        )
    numbers = rounded.rows.double().view(stretches.shape) * scales
    limited = torch.clamp(stretches, -448 * scales, 448 * scales)
    steps = torch.maximum(limited.abs() / 16, scales / 1024) * 1.001
    assert rounded.dtype is torch.bfloat16
    assert bool(((numbers - limited).abs() <= steps).all())


@pytest.mark.parametrize(("width", "stretch"), SHAPES)
@pytest.mark.parametrize("static", [None, 0.003])
def test_rows_keep_their_numbers_within_half_a_step(
    width: int, stretch: int | None, static: float | None
) -> None:
    scale = None if static is None else torch.tensor([static], device=DEVICE)
    rounding = Rounding(scale, stretch)
    x = random(3, width)
    assert_rounded(quantize_rows(x, rounding), x.double(), rounding)


@pytest.mark.parametrize(("width", "stretch"), SHAPES)
def test_the_norm_of_a_sum_is_rounded_and_the_residual_keeps_the_sum(
    width: int, stretch: int | None
) -> None:
    x, residual, weight = random(3, width), random(3, width), random(width)
    total = (x.double() + residual.double()).to(torch.bfloat16)
    rounding = Rounding(None, stretch)
    rounded = add_rms_norm_rounded(x, residual, weight, EPS, rounding)
    # The interpreter truncates to bfloat16.
    torch.testing.assert_close(residual, total, rtol=1e-2, atol=1e-2)
    wide = residual.double()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS) * weight.double()
    assert_rounded(rounded, normed, rounding)


@pytest.mark.parametrize(("width", "stretch"), SHAPES)
def test_the_gate_is_rounded(width: int, stretch: int | None) -> None:
    x = random(3, 2 * width)
    gate, up = x.double().chunk(2, -1)
    rounding = Rounding(None, stretch)
    assert_rounded(silu_and_mul_rounded(x, rounding), F.silu(gate) * up, rounding)


def test_no_rows_are_none() -> None:
    rounded = quantize_rows(random(0, 64), Rounding())
    assert len(rounded) == 0 and rounded.scales.shape == (0, 1)
