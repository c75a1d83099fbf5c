"""Rows of activations to E4M3, each row (or each stretch of a row) with a scale of its own: as they
are, or as the norm or the gate before a product makes them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.activation import gated
from jackfield.compute.kernels.launch import cdiv, overlaps, power_of_2, quick
from jackfield.compute.kernels.scaled_rows import RoundedRows, Rounding

E4M3 = torch.float8_e4m3fn
_LARGEST = tl.constexpr(448.0)


@triton.jit
def _places(
    piece: tl.constexpr,
    K: tl.constexpr,
    STRETCH: tl.constexpr,
    STRETCHES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    # Inputs [STRETCHES, WIDTH], and which of them there are: both sizes are powers of 2. A
    # stretch has PIECES of them, one behind the other.
    inside = piece * WIDTH + tl.arange(0, WIDTH)[None, :]
    k = tl.arange(0, STRETCHES)[:, None] * STRETCH + inside
    return k, (inside < STRETCH) & (k < K)


@triton.jit
def _with(pieces, piece):
    # (Triton knows no star in a tuple.)
    return pieces + (piece,)  # noqa: RUF005


@triton.jit
def _load(
    x,
    K: tl.constexpr,
    STRETCH: tl.constexpr,
    STRETCHES: tl.constexpr,
    WIDTH: tl.constexpr,
    PIECES: tl.constexpr,
):
    # The pieces of a row in float32, zero where there is no input.
    pieces = ()
    for piece in tl.static_range(PIECES):
        k, mask = _places(piece, K, STRETCH, STRETCHES, WIDTH)
        pieces = _with(pieces, tl.load(x + k, mask=mask, other=0.0).to(tl.float32))
    return pieces


@triton.jit
def _store_rounded(
    numbers,
    row,
    out,
    scales,
    static,
    K: tl.constexpr,
    STRETCH: tl.constexpr,
    STRETCHES: tl.constexpr,
    WIDTH: tl.constexpr,
    PIECES: tl.constexpr,
    STATIC: tl.constexpr,
):
    # Pieces as ``_load`` gives them.
    if STATIC:
        scale = tl.load(static) + tl.zeros((STRETCHES,), tl.float32)
    else:
        largest = tl.abs(numbers[0])
        for piece in tl.static_range(1, PIECES):
            largest = tl.maximum(largest, tl.abs(numbers[piece]))
        scale = tl.maximum(tl.max(largest, 1), 1e-12) / _LARGEST
    for piece in tl.static_range(PIECES):
        k, mask = _places(piece, K, STRETCH, STRETCHES, WIDTH)
        q = tl.clamp(numbers[piece] / scale[:, None], -_LARGEST, _LARGEST)
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
    PIECES: tl.constexpr,
    STATIC: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    numbers = _load(x + row * K, K, STRETCH, STRETCHES, WIDTH, PIECES)
    _store_rounded(
        *(numbers, row, out, scales, static, K, STRETCH, STRETCHES, WIDTH, PIECES, STATIC)
    )


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
    PIECES: tl.constexpr,
    STATIC: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    weights = _load(weight, K, STRETCH, STRETCHES, WIDTH, PIECES)
    if PDL:
        tl.extra.cuda.gdc_wait()
    a = _load(x + row * K, K, STRETCH, STRETCHES, WIDTH, PIECES)
    b = _load(residual + row * K, K, STRETCH, STRETCHES, WIDTH, PIECES)
    sums = ()
    squares = tl.zeros((STRETCHES, WIDTH), tl.float32)
    for piece in tl.static_range(PIECES):
        k, mask = _places(piece, K, STRETCH, STRETCHES, WIDTH)
        # The sum is rounded before the norm, so that the norm sees what the next layer sees.
        summed = (a[piece] + b[piece]).to(residual.dtype.element_ty)
        tl.store(residual + row * K + k, summed, mask=mask)
        v = summed.to(tl.float32)
        squares += v * v
        sums = _with(sums, v)
    factor = tl.rsqrt(tl.sum(tl.sum(squares, 1), 0) / K + eps)
    numbers = ()
    for piece in tl.static_range(PIECES):
        numbers = _with(numbers, sums[piece] * factor * weights[piece])
    _store_rounded(
        *(numbers, row, out, scales, static, K, STRETCH, STRETCHES, WIDTH, PIECES, STATIC)
    )


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
    PIECES: tl.constexpr,
    STATIC: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    gates = _load(x + row * (2 * K), K, STRETCH, STRETCHES, WIDTH, PIECES)
    ups = _load(x + row * (2 * K) + K, K, STRETCH, STRETCHES, WIDTH, PIECES)
    numbers = ()
    for piece in tl.static_range(PIECES):
        numbers = _with(numbers, gated(gates[piece], ups[piece], 1.0, 0.0))
    _store_rounded(
        *(numbers, row, out, scales, static, K, STRETCH, STRETCHES, WIDTH, PIECES, STATIC)
    )


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
    stretches = cdiv(inputs, length)
    out = torch.empty((num_rows, inputs), dtype=E4M3, device=x.device)
    scales = torch.empty((num_rows, stretches), device=x.device)
    if num_rows:
        static = rounding.static
        (width, pieces), pdl = _cut(length), overlaps(x)
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
            PIECES=pieces,
            STATIC=static is not None,
            PDL=pdl,
            num_warps=_num_warps(num_rows, size, pieces),
            launch_pdl=pdl,
        )
    return RoundedRows(out, scales, x.dtype)


def _cut(length: int) -> tuple[int, int]:
    """(Width, pieces) of the tiles that hold so many inputs: what lies beyond them costs time."""
    cuts = [(power_of_2(cdiv(length, pieces)), pieces) for pieces in (1, 3, 5, 7)]
    return min(cuts, key=lambda cut: (cut[0] * cut[1], cut[1]))


def _num_warps(num_rows: int, size: int, pieces: int) -> int:
    # Of so many inputs in a piece. A row alone on a processor is as fast as it has threads; of many
    # rows a thread takes 16 bytes of each piece, or 32 of the only one.
    if num_rows <= 64:
        return min(32, max(1, size * power_of_2(pieces) // 512))
    return min(16, max(1, size // (512 if pieces == 1 else 256)))
