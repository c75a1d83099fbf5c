"""Sampling from whole rows of logits, which nothing of their size is made of.

``draw`` inverts the cumulative distribution in three launches: the peak of each part of a row; the
weight of each part; and the part, and the token in it, that the uniform number falls on.
``cut`` finds what ``top_k`` and ``top_p`` leave, not by sorting but by searching for the smallest
logit: two bits of it each time the row is read.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import cdiv, power_of_2, quick

_PART = 4096
_BELOW_ONE = tl.constexpr(1.0 - 2.0**-53)


@quick
@triton.jit
def _peaks_kernel(logits, peaks, stride, V: tl.constexpr, PARTS: tl.constexpr, PART: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    cols = part * PART + tl.arange(0, PART)
    x = tl.load(logits + row * stride + cols, mask=cols < V, other=float("-inf")).to(tl.float32)
    peak = tl.max(x, 0)
    # The maximum passes over a NaN; a row with one has no peak.
    peak = tl.where(tl.max((x != x).to(tl.int32), 0) > 0, float("nan"), peak)
    tl.store(peaks + row * PARTS + part, peak)


@triton.jit
def _weights(x, row, peaks, temperature, threshold, reach, PARTS: tl.constexpr, P2: tl.constexpr):
    parts = tl.arange(0, P2)
    some = tl.load(peaks + row * PARTS + parts, mask=parts < PARTS, other=float("-inf"))
    peak = tl.max(some, 0)
    t = tl.load(temperature + row)
    least = tl.maximum(tl.load(threshold + row), peak + tl.load(reach + row))
    return tl.where(x >= least, tl.exp((x - peak) / t), 0.0)


@quick
@triton.jit
def _sums_kernel(
    logits,
    peaks,
    sums,
    temperature,
    threshold,
    reach,
    stride,
    V: tl.constexpr,
    PARTS: tl.constexpr,
    PART: tl.constexpr,
    P2: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    cols = part * PART + tl.arange(0, PART)
    x = tl.load(logits + row * stride + cols, mask=cols < V, other=float("-inf")).to(tl.float32)
    weights = _weights(x, row, peaks, temperature, threshold, reach, PARTS, P2)
    tl.store(sums + row * PARTS + part, tl.sum(weights, 0))


@quick
@triton.jit
def _choose_kernel(
    logits,
    peaks,
    sums,
    temperature,
    threshold,
    reach,
    uniform,
    ids,
    row_peaks,
    stride,
    V: tl.constexpr,
    PARTS: tl.constexpr,
    PART: tl.constexpr,
    P2: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    parts = tl.arange(0, P2)
    inside = parts < PARTS
    part_sums = tl.load(sums + row * PARTS + parts, mask=inside, other=0.0).to(tl.float64)
    ends = tl.cumsum(part_sums, 0)
    total = tl.sum(part_sums, 0)
    target = tl.load(uniform + row) * total
    part = tl.sum(((ends <= target) & inside).to(tl.int32), 0)
    part = tl.minimum(part, PARTS - 1)
    before = tl.sum(tl.where(parts < part, part_sums, 0.0), 0)
    cols = part * PART + tl.arange(0, PART)
    x = tl.load(logits + row * stride + cols, mask=cols < V, other=float("-inf")).to(tl.float32)
    weights = _weights(x, row, peaks, temperature, threshold, reach, PARTS, P2).to(tl.float64)
    rest = tl.minimum(target - before, tl.sum(weights, 0) * _BELOW_ONE)
    chosen = part * PART + tl.sum((tl.cumsum(weights, 0) <= rest).to(tl.int32), 0)
    tl.store(ids + row, tl.minimum(chosen, V - 1).to(tl.int64))
    some = tl.load(peaks + row * PARTS + parts, mask=inside, other=float("-inf"))
    peak = tl.where(tl.max((some != some).to(tl.int32), 0) > 0, float("nan"), tl.max(some, 0))
    tl.store(row_peaks + row, peak)


def draw(
    logits: Tensor, temperature: Tensor, threshold: Tensor, reach: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """A draw among the logits [N, V] that are at least ``threshold`` and at least the largest plus
    ``reach``, which is below 0: (ids int64 [N], the largest float32 [N], NaN if there is one).

    ``temperature``, ``threshold``, ``reach`` float32 and ``uniform`` float64, [N] or [N, 1].
    """
    num_rows, width = logits.shape
    assert logits.stride(1) == 1
    parts = cdiv(width, _PART)
    device = logits.device
    peaks, sums = torch.empty((2, num_rows, parts), dtype=torch.float32, device=device).unbind()
    ids = torch.empty(num_rows, dtype=torch.int64, device=device)
    row_peaks = torch.empty(num_rows, dtype=torch.float32, device=device)
    stride = logits.stride(0)
    cut = tuple(x.contiguous() for x in (temperature, threshold, reach))
    grid = (num_rows, parts)
    sizes = {"V": width, "PARTS": parts, "PART": _PART}
    _peaks_kernel[grid](logits, peaks, stride, **sizes)
    sizes["P2"] = power_of_2(parts)
    _sums_kernel[grid](logits, peaks, sums, *cut, stride, **sizes)
    _choose_kernel[(num_rows,)](
        logits, peaks, sums, *cut, uniform, ids, row_peaks, stride, **sizes, num_warps=8
    )
    return ids, row_peaks


@triton.jit
def _keys(x, SHIFT: tl.constexpr):
    # Integers in the order of the numbers.
    bits = x.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> SHIFT


@triton.jit
def _measure(keys, x, least, peak, t, BY_COUNT: tl.constexpr):
    # What a logit adds: 1, or its weight if it is not below ``least``.
    if BY_COUNT:
        return tl.full(keys.shape, 1.0, tl.float32)
    else:
        return tl.where(keys >= least, tl.exp((x - peak) / t), 0.0)


@triton.jit
def _smallest_key(
    row_logits,
    limit,
    least,
    peak,
    t,
    V: tl.constexpr,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
    BY_COUNT: tl.constexpr,
):
    # The smallest key such that the logits above it measure less than ``limit``.
    BITS: tl.constexpr = 32 - SHIFT
    low = tl.full((), -(1 << (BITS - 1)), tl.int32)
    for known in range(0, BITS, 2):
        quarter = (1 << (BITS - 2)) >> known
        first = tl.zeros((BLOCK,), tl.float32)
        second = tl.zeros((BLOCK,), tl.float32)
        third = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, V, BLOCK):
            cols = start + tl.arange(0, BLOCK)
            x = tl.load(row_logits + cols, mask=cols < V, other=float("-inf")).to(tl.float32)
            keys = _keys(x, SHIFT)
            measure = tl.where(cols < V, _measure(keys, x, least, peak, t, BY_COUNT), 0.0)
            first += tl.where(keys > low + (quarter - 1), measure, 0.0)
            second += tl.where(keys > low + (2 * quarter - 1), measure, 0.0)
            third += tl.where(keys > low + (3 * quarter - 1), measure, 0.0)
        passed = (tl.sum(first, 0) >= limit).to(tl.int32)
        passed += (tl.sum(second, 0) >= limit).to(tl.int32)
        passed += (tl.sum(third, 0) >= limit).to(tl.int32)
        low += passed * quarter
    return low


@quick
@triton.jit
def _cut_kernel(
    logits,
    temperature,
    top_k,
    top_p,
    thresholds,
    stride,
    V: tl.constexpr,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_logits = logits + row * stride
    t = tl.load(temperature + row)
    k = tl.load(top_k + row)
    p = tl.load(top_p + row)
    least = tl.full((), -(1 << (31 - SHIFT)), tl.int32)
    if k > 0:
        least = _smallest_key(row_logits, k.to(tl.float32), 0, 0.0, t, V, SHIFT, BLOCK, True)
    if p < 1.0:
        peaks = tl.full((BLOCK,), float("-inf"), tl.float32)
        for start in range(0, V, BLOCK):
            cols = start + tl.arange(0, BLOCK)
            x = tl.load(row_logits + cols, mask=cols < V, other=float("-inf")).to(tl.float32)
            peaks = tl.maximum(peaks, x)
        peak = tl.max(peaks, 0)
        masses = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, V, BLOCK):
            cols = start + tl.arange(0, BLOCK)
            x = tl.load(row_logits + cols, mask=cols < V, other=float("-inf")).to(tl.float32)
            masses += _measure(_keys(x, SHIFT), x, least, peak, t, False)
        limit = tl.sum(masses, 0) * p
        found = _smallest_key(row_logits, limit, least, peak, t, V, SHIFT, BLOCK, False)
        least = tl.maximum(least, found)
    # The largest number with the key's high bits would do too; the smallest is in the row.
    key = least << SHIFT
    if SHIFT > 0:
        key = tl.where(key < 0, key | ((1 << SHIFT) - 1), key)
    bits = key ^ ((key >> 31) & 0x7FFFFFFF)
    threshold = bits.to(tl.float32, bitcast=True)
    tl.store(thresholds + row, tl.where((k > 0) | (p < 1.0), threshold, float("-inf")))


_CUT_BLOCK = 8192


def cut(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The smallest of the logits [N, V] that ``top_k`` and then ``top_p`` keep, float32 [N];
    -infinity for rows with neither (``top_k`` 0, ``top_p`` 1).

    ``temperature``, ``top_p`` float32 and ``top_k`` int32, [N] or [N, 1].
    """
    num_rows, width = logits.shape
    assert logits.stride(1) == 1
    thresholds = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    _cut_kernel[(num_rows,)](
        logits,
        temperature.contiguous(),
        top_k.contiguous(),
        top_p.contiguous(),
        thresholds,
        logits.stride(0),
        V=width,
        # bfloat16 has 16 bits to search, the rest of a float32 follows from them.
        SHIFT=16 if logits.dtype is torch.bfloat16 else 0,
        BLOCK=min(_CUT_BLOCK, power_of_2(width)),
        num_warps=16,
    )
    return thresholds
