"""Products of codes on Hopper, with what lies between them: which kernel takes how many rows."""

from __future__ import annotations

from torch import Tensor

from jackfield.compute.kernels import coded_row, coded_rows
from jackfield.compute.kernels.coded_layout import DeviceCodes
from jackfield.compute.kernels.scaled_rows import ScaledRows


def takes(num_rows: int, codes: DeviceCodes) -> bool:
    """Whether so many rows are multiplied here: that is faster than elsewhere."""
    return _is_a_row(num_rows, codes) or coded_rows.pays(num_rows, codes)


def takes_gated(num_rows: int, codes: DeviceCodes) -> bool:
    """Whether ``gated`` does it."""
    if _is_a_row(num_rows, codes):
        return coded_row.takes_gated(codes)
    return coded_rows.pays(num_rows, codes) and coded_rows.takes_gated(codes)


def linear(x: Tensor | ScaledRows, codes: DeviceCodes, bias: Tensor | None) -> Tensor:
    """x [M, K], contiguous, float16 or bfloat16, times the weight [N, K] transposed, plus bias [N]
    -> [M, N].

    The weight is read before the launch before this one has ended: nothing that is still running
    may write it.
    """
    if _is_a_row(len(x), codes):
        return coded_row.linear_row(x, codes, bias)
    return coded_rows.linear_rows(x, codes, bias)


def gated(x: Tensor | ScaledRows, codes: DeviceCodes, bias: Tensor | None) -> Tensor:
    """SiLU of the first half of what ``linear`` gives times the second half, [M, N / 2]."""
    if _is_a_row(len(x), codes):
        return coded_row.gated_row(x, codes, bias)
    return coded_rows.gated_rows(x, codes, bias)


def add(
    x: Tensor,
    codes: DeviceCodes,
    bias: Tensor | None,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
) -> ScaledRows:
    """As ``linear``, plus ``residual`` [M, N], which keeps the sum; what RMSNorm with
    ``norm_weight`` [N] makes of it, but for the division. bfloat16: unnormalized rows may be more
    than float16 holds."""
    if _is_a_row(len(x), codes):
        return coded_row.add_row(x, codes, bias, residual, norm_weight, eps)
    return coded_rows.add_rows(x, codes, bias, residual, norm_weight, eps)


def _is_a_row(num_rows: int, codes: DeviceCodes) -> bool:
    return num_rows == 1 and coded_row.takes(codes)
