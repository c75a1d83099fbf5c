"""Which kernel multiplies a weight with few rows: bound by reading the weight, each in its way."""

from __future__ import annotations

from torch import Tensor

from jackfield.compute.kernels import gemv
from jackfield.compute.kernels.launch import runs_hopper_kernels


def linear(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor | None:
    """x [M, K] times w [N, K] transposed, plus bias [N] -> [M, N]; None where cuBLAS is as fast.

    x and w are contiguous and on a GPU. Nothing that still runs may write w.
    """
    m, (n, k) = len(x), w.shape
    if m > 1 and runs_hopper_kernels(x.device):
        from jackfield.compute.kernels import hopper_linear  # needs Gluon

        if hopper_linear.supports(m, n, k, x.dtype):
            return hopper_linear.hopper_linear(x, w, bias)
    if gemv.supports(m, n, k, x.dtype):
        return gemv.linear_small(x, w, bias)
    return None
