"""Sampling from whole rows of logits, which nothing of their size is made of.

``draw`` inverts the cumulative distribution: a launch finds the largest logit of each part of a row
and what the part weighs, one weighs the parts of rows that are cut again, and one finds the part,
and the token in it, that the row's uniform number falls on. What a row asks for is read from its
record (``RowState.records``).
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
_RECORD = tl.constexpr(10)
_TEMPERATURE, _TOP_P, _MIN_P = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_TOP_K, _SEED = tl.constexpr(6), tl.constexpr(8)
"""Integers of a row's record, and where in it they are."""


@triton.jit
def _number(records, row, FIELD: tl.constexpr):
    return tl.load(records + row * _RECORD + FIELD).to(tl.float32, bitcast=True)


@triton.jit
def _part_of(logits, row, part, stride, V: tl.constexpr, PART: tl.constexpr):
    cols = part * PART + tl.arange(0, PART)
    x = tl.load(logits + row * stride + cols, mask=cols < V, other=float("-inf"))
    return cols, x.to(tl.float32)


@triton.jit
def _beside(x, peak, t):
    # What x weighs beside a weight of 1 for the peak; nothing if it is -infinity, NaN if it is.
    peak = tl.where((peak > float("-inf")) & (peak < float("inf")), peak, 0.0)
    return tl.exp2((x - peak) * (1.4426950408889634 / t))


@quick
@triton.jit(do_not_specialize_on_alignment=["rows", "sums"])
def _parts_kernel(
    logits,
    records,
    rows,
    peaks,
    sums,
    stride,
    V: tl.constexpr,
    PARTS: tl.constexpr,
    PART: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    t = _number(records, tl.load(rows + row), _TEMPERATURE)
    _, x = _part_of(logits, row, part, stride, V, PART)
    # The maximum passes over a NaN, the sum does not.
    peak = tl.max(x, 0)
    tl.store(peaks + row * PARTS + part, peak)
    weights = _beside(x, peak, tl.where(t > 0, t, 1.0))
    tl.store(sums + row * PARTS + part, tl.sum(weights, 0))


@triton.jit
def _cut_of(record_row, records, thresholds, row, peak, t, CUT: tl.constexpr):
    # Whether something of the row is left out, and the smallest logit that is not.
    min_p = _number(records, record_row, _MIN_P)
    reach = tl.log(tl.where(min_p > 0, min_p, 1.0)) * t
    least = tl.where(min_p > 0, peak + reach, float("-inf"))
    if CUT:
        least = tl.maximum(least, tl.load(thresholds + row))
    return least > float("-inf"), least


@quick
@triton.jit(do_not_specialize_on_alignment=["rows", "sums"])
def _cut_sums_kernel(
    logits,
    records,
    rows,
    thresholds,
    peaks,
    sums,
    stride,
    V: tl.constexpr,
    PARTS: tl.constexpr,
    PART: tl.constexpr,
    P2: tl.constexpr,
    CUT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    parts = tl.arange(0, P2)
    some = tl.load(peaks + row * PARTS + parts, mask=parts < PARTS, other=float("-inf"))
    peak = tl.max(some, 0)
    record_row = tl.load(rows + row)
    t = _number(records, record_row, _TEMPERATURE)
    is_cut, least = _cut_of(record_row, records, thresholds, row, peak, t, CUT)
    if is_cut & (t > 0):
        _, x = _part_of(logits, row, part, stride, V, PART)
        weights = tl.where(x < least, 0.0, _beside(x, peak, t))
        tl.store(sums + row * PARTS + part, tl.sum(weights, 0))


@triton.jit
def _uniform(seed, position):
    # splitmix64, as ``sampler.uniforms``.
    z = (seed + position * -0x61C8864680B583EB).to(tl.uint64, bitcast=True)
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)
    return (z >> 11).to(tl.float64) * (1.0 / (1 << 53))


@quick
@triton.jit(do_not_specialize_on_alignment=["rows", "positions", "sums"])
def _draw_kernel(
    logits,
    records,
    rows,
    positions,
    thresholds,
    peaks,
    sums,
    token_ids,
    chosen,
    stride,
    ids_stride,
    V: tl.constexpr,
    PARTS: tl.constexpr,
    PART: tl.constexpr,
    P2: tl.constexpr,
    CUT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    record_row, position = tl.load(rows + row), tl.load(positions + row)
    temperature = _number(records, record_row, _TEMPERATURE)
    t = tl.where(temperature > 0, temperature, 1.0)
    seed = records + record_row * _RECORD + _SEED
    low, high = tl.load(seed).to(tl.uint32, bitcast=True), tl.load(seed + 1)
    uniform = _uniform((high.to(tl.int64) << 32) | low.to(tl.int64), position)
    parts = tl.arange(0, P2)
    inside = parts < PARTS
    some = tl.load(peaks + row * PARTS + parts, mask=inside, other=float("-inf"))
    peak = tl.max(some, 0)
    is_cut, least = _cut_of(record_row, records, thresholds, row, peak, temperature, CUT)
    part_sums = tl.load(sums + row * PARTS + parts, mask=inside, other=0.0)
    # What is not cut was weighed beside its own part's peak.
    part_sums *= tl.where(is_cut, 1.0, _beside(some, peak, t))
    possible = (peak < float("inf")) & (peak > float("-inf"))
    part_sums = tl.where(possible, part_sums, 0.0).to(tl.float64)
    total = tl.sum(part_sums, 0)
    target = uniform * total
    part = tl.sum(((tl.cumsum(part_sums, 0) <= target) & inside).to(tl.int32), 0)
    first_part = tl.min(tl.where(some == peak, parts, PARTS), 0)
    part = tl.minimum(tl.where(temperature > 0, part, first_part), PARTS - 1)
    before = tl.sum(tl.where(parts < part, part_sums, 0.0), 0)
    cols, x = _part_of(logits, row, part, stride, V, PART)
    weights = tl.where(x >= least, _beside(x, peak, t), 0.0).to(tl.float64)
    rest = tl.minimum(target - before, tl.sum(weights, 0) * _BELOW_ONE)
    drawn = part * PART + tl.sum((tl.cumsum(weights, 0) <= rest).to(tl.int32), 0)
    first = tl.min(tl.where(x == peak, cols, V), 0)
    token = tl.minimum(tl.where(temperature > 0, drawn, first), V - 1)
    tl.store(token_ids + record_row * ids_stride + position, token)
    # A NaN anywhere is in the total.
    tl.store(chosen + row, tl.where(possible & (total == total), token, -1))


def draw(
    logits: Tensor,
    records: Tensor,
    rows: Tensor,
    positions: Tensor,
    token_ids: Tensor,
    thresholds: Tensor | None = None,
) -> Tensor:
    """A token for each row of logits [N, V], int32 [N]; -1 where the largest is no finite number or
    the row has a NaN. Written (some token then) to ``token_ids`` int32 [R, M] at ``rows``,
    ``positions``, int64 [N] both.

    Drawn among the logits that are at least ``thresholds`` float32 [N] and that ``min_p`` keeps;
    the first of the largest where the temperature is 0. ``records`` int32 [R, 10].
    """
    num_rows, width = logits.shape
    assert logits.stride(1) == 1
    parts = cdiv(width, _PART)
    device = logits.device
    peaks, sums = torch.empty((2, num_rows, parts), dtype=torch.float32, device=device).unbind()
    chosen = torch.empty(num_rows, dtype=torch.int32, device=device)
    stride = logits.stride(0)
    grid = (num_rows, parts)
    sizes = {"V": width, "PARTS": parts, "PART": _PART}
    _parts_kernel[grid](logits, records, rows, peaks, sums, stride, **sizes)
    sizes |= {"P2": power_of_2(parts), "CUT": thresholds is not None}
    cut_at = peaks if thresholds is None else thresholds
    _cut_sums_kernel[grid](logits, records, rows, cut_at, peaks, sums, stride, **sizes)
    _draw_kernel[(num_rows,)](
        logits,
        records,
        rows,
        positions,
        cut_at,
        peaks,
        sums,
        token_ids,
        chosen,
        stride,
        token_ids.stride(0),
        **sizes,
        num_warps=8,
    )
    return chosen


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
@triton.jit(do_not_specialize_on_alignment=["rows"])
def _cut_kernel(
    logits,
    records,
    rows,
    thresholds,
    stride,
    V: tl.constexpr,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_logits = logits + row * stride
    record_row = tl.load(rows + row)
    t = _number(records, record_row, _TEMPERATURE)
    p = _number(records, record_row, _TOP_P)
    k = tl.load(records + record_row * _RECORD + _TOP_K)
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


def cut(logits: Tensor, records: Tensor, rows: Tensor) -> Tensor:
    """The smallest of the logits [N, V] that ``top_k`` and then ``top_p`` keep, float32 [N];
    -infinity for rows with neither (``top_k`` 0, ``top_p`` 1). ``records`` int32 [R, 10] are those
    of ``rows`` int64 [N]."""
    num_rows, width = logits.shape
    assert logits.stride(1) == 1
    thresholds = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    _cut_kernel[(num_rows,)](
        logits,
        records,
        rows,
        thresholds,
        logits.stride(0),
        V=width,
        # bfloat16 has 16 bits to search, the rest of a float32 follows from them.
        SHIFT=16 if logits.dtype is torch.bfloat16 else 0,
        BLOCK=min(_CUT_BLOCK, power_of_2(width)),
        num_warps=16,
    )
    return thresholds
