"""A weight times few rows as Hopper wants it: the weight is on its way before the rows are.

A program multiplies 64 or 128 rows of the weight with up to 128 rows of x. It starts copying its
weight while the kernel before it still runs, as many tiles as its shared memory holds, and waits
for x then: that hides most of what a kernel of a few microseconds waits for. Where the weight has
few rows its inner dimension is split, and the last program to arrive adds the parts. What would be
small kernels between products is done to the tile that a program has at its end: SiLU of the gate,
the residual's addition, and both halves of RMSNorm (``ScaledRows``). Written in Gluon; the
interpreter does not run it, so that it is checked on a GPU only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jackfield.compute.kernels.hopper_linear_kernel import linear_kernel
from jackfield.compute.kernels.hopper_tiles import described, described_gated
from jackfield.compute.kernels.launch import cdiv, power_of_2
from jackfield.compute.kernels.linear_config import (
    MAX_SPLIT_OUTPUTS,
    LinearConfig,
    float8_config,
    linear_config,
)
from jackfield.compute.kernels.scaled_rows import ScaledRows
from jackfield.compute.kernels.split_inputs import split_workspace

MAX_ROWS = 256
MAX_FLOAT8_ROWS = 128
_LARGE, _MAX_ROWS_OF_LARGE = 8 << 20, 64
"""Elements of a weight that cuBLAS multiplies as fast with more rows than these."""
_MAX_PARTS, _MAX_TILES = MAX_SPLIT_OUTPUTS * MAX_ROWS, 4 * MAX_SPLIT_OUTPUTS // 64


def takes(m: int, n: int, k: int, dtype: torch.dtype) -> bool:
    """Whether x [m, k] and w [n, k] are multiplied here: that is faster than cuBLAS."""
    fits = k % 8 == 0 and dtype in (torch.bfloat16, torch.float16)
    return fits and 1 <= m <= (MAX_ROWS if n * k <= _LARGE else _MAX_ROWS_OF_LARGE)


def fuses(m: int, w: Tensor, reader: Tensor) -> bool:
    """Whether the product of m rows with w [N, K] is to normalize its sums for the product with
    ``reader`` [., N]: both are multiplied here."""
    return all(takes(m, len(v), v.shape[1], v.dtype) and len(v) % 16 == 0 for v in (w, reader))


def hopper_linear(
    x: Tensor | ScaledRows, w: Tensor, bias: Tensor | None, config: LinearConfig | None = None
) -> Tensor:
    """x [M, K] times w [N, K] transposed, plus bias [N] -> [M, N]; for what ``takes`` says yes
    to. x and w are contiguous.

    The weight is read before the launch before this one has ended: nothing that is still running
    may write it.
    """
    return _product(x, w, bias, config)


def hopper_linear_gated(
    x: Tensor | ScaledRows, w: Tensor, bias: Tensor | None, config: LinearConfig | None = None
) -> Tensor:
    """As ``hopper_linear``, then SiLU of the first half of the outputs times the second half,
    [M, N / 2]; N is a multiple of 16."""
    return _product(x, w, bias, config, gated=True)


def hopper_linear_add(
    x: Tensor | ScaledRows,
    w: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
    config: LinearConfig | None = None,
) -> ScaledRows:
    """As ``hopper_linear``, plus ``residual`` [M, N], which keeps the sum; what RMSNorm with
    ``norm_weight`` [N] makes of it, but for the division. bfloat16: unnormalized rows may be more
    than float16 holds."""
    config = config or linear_config(len(x), len(w), w.shape[1])
    shape = (cdiv(len(w), config.block_n), len(x))
    squares = torch.empty(shape, dtype=torch.float32, device=w.device)
    rows = _product(x, w, bias, config, adds=(residual, norm_weight, squares))
    return ScaledRows(rows, squares, eps)


def hopper_linear_float8(
    x: Tensor,
    x_scales: Tensor,
    w: Tensor,
    w_scales: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    config: LinearConfig | None = None,
) -> Tensor:
    """As ``hopper_linear``, x and w in E4M3, up to ``MAX_FLOAT8_ROWS`` rows; ``x_scales`` [M] and
    ``w_scales`` [N], float32, multiply their rows; the result is in ``dtype``."""
    config = config or float8_config(len(x), len(w), w.shape[1])
    return _product(x, w, bias, config, scales=(x_scales, w_scales), dtype=dtype)


def _product(
    x: Tensor | ScaledRows,
    w: Tensor,
    bias: Tensor | None,
    config: LinearConfig | None,
    *,
    scales: tuple[Tensor, Tensor] | None = None,
    gated: bool = False,
    adds: tuple[Tensor, Tensor, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    # adds: residual, the norm's weight, squares of the sums.
    rows, squares, eps = ScaledRows.parts(x)
    (m, k), n = rows.shape, w.shape[0]
    config = config or linear_config(m, n, k)
    out = torch.empty((m, n // 2 if gated else n), dtype=dtype or rows.dtype, device=w.device)
    x_scales, w_scales = scales or (out, out)
    residual, norm_weight, squares_out = adds or (out, out, out)
    parts, arrivals = (
        split_workspace(w.device, _MAX_PARTS, _MAX_TILES) if config.split > 1 else (out, out)
    )
    k_per_part = cdiv(cdiv(k, config.split), config.block_k) * config.block_k
    grid = (cdiv(m, config.block_m), cdiv(n, config.block_n), config.split)
    describe = described_gated if gated else described
    linear_kernel[grid](
        described(rows, config.block_m, config.block_k),
        describe(w, config.block_n, config.block_k),
        x_scales,
        w_scales,
        bias if bias is not None else out,
        squares if squares is not None else out,
        residual,
        norm_weight,
        out,
        squares_out,
        parts,
        arrivals,
        m,
        n,
        k,
        k_per_part,
        0 if squares is None else len(squares),
        eps,
        BLOCK_N=config.block_n,
        SPLIT=config.split,
        STAGES=config.stages,
        PENDING=config.pending,
        MAX_SQUARES=0 if squares is None else max(16, power_of_2(len(squares))),
        SCALED=scales is not None,
        HAS_BIAS=bias is not None,
        GATED=gated,
        ADDS=adds is not None,
        num_warps=config.block_n // 16,
        launch_pdl=True,
    )
    return out
