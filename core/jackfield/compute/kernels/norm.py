"""RMSNorm, alone and fused with the residual addition before it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import overlaps, power_of_2, quick


@quick
@triton.jit
def _rms_norm_kernel(
    x,
    weight,
    out,
    x_stride,
    eps,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < N
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    w = tl.load(weight + cols, mask=mask, other=0.0).to(tl.float32)
    if PDL:
        tl.extra.cuda.gdc_wait()
    v = tl.load(x + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v, 0) / N + eps)
    tl.store(out + row * N + cols, (v * scale * w).to(out.dtype.element_ty), mask=mask)


@quick
@triton.jit
def _add_rms_norm_kernel(
    x,
    residual,
    weight,
    out,
    x_stride,
    residual_stride,
    eps,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < N
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    w = tl.load(weight + cols, mask=mask, other=0.0).to(tl.float32)
    if PDL:
        tl.extra.cuda.gdc_wait()
    a = tl.load(x + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)
    sums = residual + row * residual_stride + cols
    b = tl.load(sums, mask=mask, other=0.0).to(tl.float32)
    # The sum is rounded before the norm, so that the norm sees what the next layer sees.
    rounded = (a + b).to(residual.dtype.element_ty)
    tl.store(sums, rounded, mask=mask)
    v = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v, 0) / N + eps)
    tl.store(out + row * N + cols, (v * scale * w).to(out.dtype.element_ty), mask=mask)


def _num_warps(block: int) -> int:
    return min(16, max(1, block // 512))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., N] with weight [N] -> x / rms(x) * weight, in x's dtype and contiguous."""
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    num_rows, n = rows.shape
    if not num_rows:
        return out
    block, pdl = power_of_2(n), overlaps(x)
    _rms_norm_kernel[(num_rows,)](
        rows,
        weight,
        out,
        rows.stride(0),
        eps,
        N=n,
        BLOCK=block,
        PDL=pdl,
        num_warps=_num_warps(block),
        launch_pdl=pdl,
    )
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x, residual [T, N] -> (rms_norm(x + residual), x + residual), the latter in place."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    num_rows, n = x.shape
    if not num_rows:
        return out, residual
    block, pdl = power_of_2(n), overlaps(x)
    _add_rms_norm_kernel[(num_rows,)](
        x,
        residual,
        weight,
        out,
        x.stride(0),
        residual.stride(0),
        eps,
        N=n,
        BLOCK=block,
        PDL=pdl,
        num_warps=_num_warps(block),
        launch_pdl=pdl,
    )
    return out, residual
