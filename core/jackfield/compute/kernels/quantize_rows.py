"""Rows of activations to E4M3, each row (or each stretch of a row) with a scale of its own: as they
are, or as the norm or the gate before a product makes them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.activation import gated
from jackfield.compute.kernels.launch import overlaps, power_of_2, quick
from jackfield.compute.kernels.scaled_rows import RoundedRows, Rounding

E4M3 = torch.float8_e4m3fn
_LARGEST = tl.constexpr(448.0)


@triton.jit
def _places(K: tl.constexpr, STRETCH: tl.constexpr, STRETCHES: tl.constexpr, WIDTH: tl.constexpr):
    # Inputs [STRETCHES, WIDTH], and which of them there are: both sizes are powers of 2.
    k = tl.arange(0, STRETCHES)[:, None] * STRETCH + tl.arange(0, WIDTH)[None, :]
    return k, (tl.arange(0, WIDTH) < STRETCH)[None, :] & (k < K)


@triton.jit
def _store_rounded(
    v,
    row,
    k,
    mask,
    out,
    scales,
    static,
    K: tl.constexpr,
    STRETCH: tl.constexpr,
    STRETCHES: tl.constexpr,
    STATIC: tl.constexpr,
):
    # Numbers float32 [STRETCHES, WIDTH], zero where there is no input.
    if STATIC:
        scale = tl.load(static) + tl.zeros((STRETCHES,), tl.float32)
    else:
        scale = tl.maximum(tl.max(tl.abs(v), 1), 1e-12) / _LARGEST
    q = tl.clamp(v / scale[:, None], -_LARGEST, _LARGEST)
    tl.store(out + row * K + k, q.to(tl.float8e4nv), mask=mask)
    stretch = tl.arange(0, STRETCHES)
    tl.store(scales + row * tl.cdiv(K, STRETCH) + stretch, scale, mask=stretch * STRETCH < K)


@quick
@triton.jit
def _quantize_rows_kernel(
    x,
    out,
    scales,
    static,
    K: tl.constexpr,
    STRETCH: tl.constexpr,
    STRETCHES: tl.constexpr,
    WIDTH: tl.constexpr,
    STATIC: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    k, mask = _places(K, STRETCH, STRETCHES, WIDTH)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    v = tl.load(x + row * K + k, mask=mask, other=0.0).to(tl.float32)
    _store_rounded(v, row, k, mask, out, scales, static, K, STRETCH, STRETCHES, STATIC)


@quick
@triton.jit
def _add_rms_norm_rounded_kernel(
    x,
    residual,
    weight,
    out,
    scales,
    static,
    eps,
    K: tl.constexpr,
    STRETCH: tl.constexpr,
    STRETCHES: tl.constexpr,
    WIDTH: tl.constexpr,
    STATIC: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    k, mask = _places(K, STRETCH, STRETCHES, WIDTH)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    w = tl.load(weight + k, mask=mask, other=0.0).to(tl.float32)
    if PDL:
        tl.extra.cuda.gdc_wait()
    a = tl.load(x + row * K + k, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(residual + row * K + k, mask=mask, other=0.0).to(tl.float32)
    # The sum is rounded before the norm, so that the norm sees what the next layer sees.
    summed = (a + b).to(residual.dtype.element_ty)
    tl.store(residual + row * K + k, summed, mask=mask)
    v = summed.to(tl.float32)
    v = v * tl.rsqrt(tl.sum(tl.sum(v * v, 1), 0) / K + eps) * w
    _store_rounded(v, row, k, mask, out, scales, static, K, STRETCH, STRETCHES, STATIC)


@quick
@triton.jit
def _silu_and_mul_rounded_kernel(
    x,
    out,
    scales,
    static,
    K: tl.constexpr,
    STRETCH: tl.constexpr,
    STRETCHES: tl.constexpr,
    WIDTH: tl.constexpr,
    STATIC: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    k, mask = _places(K, STRETCH, STRETCHES, WIDTH)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    gate = tl.load(x + row * (2 * K) + k, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(x + row * (2 * K) + K + k, mask=mask, other=0.0).to(tl.float32)
    v = gated(gate, up, 1.0, 0.0)
    _store_rounded(v, row, k, mask, out, scales, static, K, STRETCH, STRETCHES, STATIC)


def quantize_rows(x: Tensor, rounding: Rounding) -> RoundedRows:
    """x [T, K], contiguous, rounded."""
    return _rounded(_quantize_rows_kernel, (x,), (), x.shape[1], rounding)


def add_rms_norm_rounded(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, rounding: Rounding
) -> RoundedRows:
    """x and ``residual`` [T, K], contiguous -> RMSNorm of their sum, rounded; the residual becomes
    the sum."""
    tensors = (x, residual, weight)
    return _rounded(_add_rms_norm_rounded_kernel, tensors, (eps,), x.shape[1], rounding)


def silu_and_mul_rounded(x: Tensor, rounding: Rounding) -> RoundedRows:
    """x [T, 2K], contiguous, the gate first -> silu(gate) * up [T, K], rounded."""
    return _rounded(_silu_and_mul_rounded_kernel, (x,), (), x.shape[1] // 2, rounding)


def _rounded(
    kernel: object,
    tensors: tuple[Tensor, ...],
    numbers: tuple[float, ...],
    inputs: int,
    rounding: Rounding,
) -> RoundedRows:
    # ``kernel`` makes rows of so many inputs of the tensors; the first one has the rows.
    x = tensors[0]
    num_rows = len(x)
    length = rounding.stretch or inputs
    stretches = -(-inputs // length)
    out = torch.empty((num_rows, inputs), dtype=E4M3, device=x.device)
    scales = torch.empty((num_rows, stretches), device=x.device)
    if num_rows:
        static = rounding.static
        width, pdl = power_of_2(length), overlaps(x)
        size = width * power_of_2(stretches)
        kernel[(num_rows,)](  # type: ignore[index]
            *tensors,
            out,
            scales,
            scales if static is None else static,
            *numbers,
            K=inputs,
            STRETCH=length,
            STRETCHES=power_of_2(stretches),
            WIDTH=width,
            STATIC=static is not None,
            PDL=pdl,
            num_warps=_num_warps(num_rows, size),
            launch_pdl=pdl,
        )
    return RoundedRows(out, scales, x.dtype)


def _num_warps(num_rows: int, size: int) -> int:
    # A row alone on a processor is as fast as it has threads.
    return min(32 if num_rows <= 64 else 16, max(1, size // 512))
