"""Rows of activations to E4M3, each row (or each stretch of a row) with a scale of its own."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import overlaps, power_of_2, quick

E4M3 = torch.float8_e4m3fn
_LARGEST = tl.constexpr(448.0)


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
    # STRETCHES (a power of 2) stretches of STRETCH inputs, each WIDTH (a power of 2) wide.
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, STRETCHES)[:, None] * STRETCH + tl.arange(0, WIDTH)[None, :]
    mask = (tl.arange(0, WIDTH) < STRETCH)[None, :] & (k < K)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    v = tl.load(x + row * K + k, mask=mask, other=0.0).to(tl.float32)
    if STATIC:
        scale = tl.load(static) + tl.zeros((STRETCHES,), tl.float32)
    else:
        scale = tl.maximum(tl.max(tl.abs(v), 1), 1e-12) / _LARGEST
    q = tl.clamp(v / scale[:, None], -_LARGEST, _LARGEST)
    tl.store(out + row * K + k, q.to(tl.float8e4nv), mask=mask)
    stretch = tl.arange(0, STRETCHES)
    tl.store(scales + row * tl.cdiv(K, STRETCH) + stretch, scale, mask=stretch * STRETCH < K)


def quantize_rows(
    x: Tensor, static: Tensor | None = None, stretch: int | None = None
) -> tuple[Tensor, Tensor]:
    """x [T, K], contiguous -> (E4M3 [T, K], float32 scales [T, K / stretch]), whose product is x.

    The largest magnitude of a stretch (None: the whole row) becomes 448; with ``static``, float32
    of one element, that is the scale, and what is beyond it is cut off.
    """
    num_rows, inputs = x.shape
    length = stretch or inputs
    stretches = -(-inputs // length)
    out = torch.empty((num_rows, inputs), dtype=E4M3, device=x.device)
    scales = torch.empty((num_rows, stretches), device=x.device)
    if not num_rows:
        return out, scales
    width, pdl = power_of_2(length), overlaps(x)
    size = width * power_of_2(stretches)
    _quantize_rows_kernel[(num_rows,)](
        x,
        out,
        scales,
        scales if static is None else static,
        K=inputs,
        STRETCH=length,
        STRETCHES=power_of_2(stretches),
        WIDTH=width,
        STATIC=static is not None,
        PDL=pdl,
        num_warps=min(16, max(1, size // 1024)),
        launch_pdl=pdl,
    )
    return out, scales
