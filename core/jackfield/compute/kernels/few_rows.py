"""Which kernel multiplies a weight with few rows: bound by reading the weight, each in its way.

The gate's product has a kernel for many rows too.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from jackfield.compute.kernels import gemv
from jackfield.compute.kernels.launch import runs_hopper_kernels
from jackfield.compute.kernels.scaled_rows import ScaledRows

_PLAIN = 64
"""Up to here a product without a norm or a residual in it is faster than cuBLAS's."""


def _hopper_linear(device: torch.device) -> ModuleType | None:
    if not runs_hopper_kernels(device):
        return None
    from jackfield.compute.kernels import hopper_linear  # needs Gluon

    return hopper_linear


def _hopper_gated(device: torch.device) -> ModuleType | None:
    if not runs_hopper_kernels(device):
        return None
    from jackfield.compute.kernels import hopper_gated  # needs Gluon

    return hopper_gated


def linear(x: Tensor | ScaledRows, w: Tensor, bias: Tensor | None) -> Tensor | None:
    """x [M, K] times w [N, K] transposed, plus bias [N] -> [M, N]; None where cuBLAS is as fast,
    and x is no ``ScaledRows``.

    x and w are contiguous and on a GPU. Nothing that still runs may write w.
    """
    m, (n, k) = len(x), w.shape
    hopper = _hopper_linear(w.device)
    if hopper and (isinstance(x, ScaledRows) or (m <= _PLAIN and hopper.takes(m, n, k, x.dtype))):
        product: Tensor = hopper.hopper_linear(x, w, bias)
        return product
    assert isinstance(x, Tensor), "rows are only scaled for a product here"
    return gemv.linear_small(x, w, bias) if gemv.supports(m, n, k, x.dtype) else None


def linear_gated(x: Tensor | ScaledRows, w: Tensor, bias: Tensor | None) -> Tensor | None:
    """As ``linear``, then SiLU of the first half of the outputs times the second half, [M, N / 2];
    None where nothing does that in one."""
    m, (n, k) = len(x), w.shape
    hopper = _hopper_linear(w.device)
    if hopper and n % 16 == 0 and (isinstance(x, ScaledRows) or hopper.takes(m, n, k, x.dtype)):
        gated: Tensor = hopper.hopper_linear_gated(x, w, bias)
        return gated
    assert isinstance(x, Tensor), "rows are only scaled for a product here"
    many = _hopper_gated(w.device)
    if many and bias is None and many.takes(m, n, k, x.dtype):
        made: Tensor = many.hopper_gated(x, w)
        return made
    return gemv.gemv_gated(x, w, bias) if m == 1 and gemv.supports(1, n, k, x.dtype) else None


def linear_add(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
    reader: Tensor,
) -> ScaledRows | None:
    """As ``linear``, plus ``residual`` [M, N], which keeps the sum; then RMSNorm with
    ``norm_weight`` [N] for a product with the weight ``reader`` [., N]. None where that is not
    done in one; the residual is as it was then."""
    hopper = _hopper_linear(w.device)
    if not hopper or not hopper.fuses(len(x), w, reader) or x.dtype is not torch.bfloat16:
        return None
    scaled: ScaledRows = hopper.hopper_linear_add(x, w, bias, residual, norm_weight, eps)
    return scaled
