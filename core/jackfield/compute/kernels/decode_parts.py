"""What programs make of a pair they share: each leaves its part, the last to arrive merges them."""

import triton
import triton.language as tl

from jackfield.compute.kernels.softmax import MASKED

PARTS_AT_ONCE = tl.constexpr(8)
PARTS_OF_MANY_AT_ONCE = tl.constexpr(4)
"""Parts that are merged at once, of few pairs and of many, which leave fewer registers for it."""


@triton.jit
def _part(
    partial,
    stats,
    program,
    first,
    last,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # What ``program`` left of a pair: its second slot if it is the pair's first, else its first
    # slot; beyond the pair's last nothing.
    g = tl.arange(0, BLOCK_ROWS)
    dims = tl.arange(0, BLOCK_D)[None, :]
    rows = (g < GROUP) & (program <= last)
    place = (2 * program + (program == first).to(tl.int32)) * GROUP + g
    m = tl.load(stats + 2 * place, mask=rows, other=MASKED, cache_modifier=".cg")
    denom = tl.load(stats + 2 * place + 1, mask=rows, other=0.0, cache_modifier=".cg")
    offsets = place[:, None] * HEAD_DIM + dims
    mask = rows[:, None] & (dims < HEAD_DIM)
    return m, denom, tl.load(partial + offsets, mask=mask, other=0.0, cache_modifier=".cg")


@triton.jit
def _merge(
    partial,
    stats,
    first,
    last,
    out,
    factor,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    # The pair's parts times ``factor``, [GROUP, HEAD_DIM] at ``out``. AT_ONCE of them are asked for
    # before one is looked at.
    dims = tl.arange(0, BLOCK_D)[None, :]
    g = tl.arange(0, BLOCK_ROWS)
    mask = (g < GROUP)[:, None] & (dims < HEAD_DIM)
    m = tl.full((BLOCK_ROWS,), MASKED, tl.float32)
    denom = tl.zeros((BLOCK_ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    for program in range(first, last + 1, AT_ONCE):
        parts = ()
        for i in tl.static_range(AT_ONCE):
            part = _part(
                *(partial, stats, program + i, first, last),
                *(GROUP, HEAD_DIM, BLOCK_ROWS, BLOCK_D),
            )
            parts += (part,)  # type: ignore[assignment]
        largest = m
        for i in tl.static_range(AT_ONCE):
            largest = tl.maximum(largest, parts[i][0])
        weight = tl.exp2(m - largest)
        m, denom, acc = largest, denom * weight, acc * weight[:, None]
        for i in tl.static_range(AT_ONCE):
            weight = tl.exp2(parts[i][0] - largest)
            denom += parts[i][1] * weight
            acc += parts[i][2] * weight[:, None]
    denom = tl.where(g < GROUP, denom, 1.0)
    y = (acc * (factor / denom)[:, None]).to(out.dtype.element_ty)
    tl.store(out + g[:, None] * HEAD_DIM + dims, y, mask=mask)


@triton.jit
def write_or_leave(
    m,
    denom,
    acc,
    factor,
    out,
    partial,
    stats,
    arrivals,
    program,
    first,
    last,
    begins,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Writes what a program has of a pair to ``out`` [GROUP, HEAD_DIM], times ``factor``, where no
    other has some; else leaves it, and if programs ``first`` to ``last`` have, merges. ``begins``:
    the program has the pair's beginning."""
    g = tl.arange(0, BLOCK_G)
    dims = tl.arange(0, BLOCK_D)[None, :]
    mask = (g < GROUP)[:, None] & (dims < HEAD_DIM)
    if first == last:
        y = (acc * factor / denom[:, None]).to(out.dtype.element_ty)
        tl.store(out + g[:, None] * HEAD_DIM + dims, y, mask=mask)
    else:
        slot = (2 * program + begins.to(tl.int32)) * GROUP + g
        tl.store(stats + 2 * slot, m, mask=g < GROUP)
        tl.store(stats + 2 * slot + 1, denom, mask=g < GROUP)
        tl.store(partial + slot[:, None] * HEAD_DIM + dims, acc, mask=mask)
        # The barrier orders this program's stores before its one releasing increment.
        tl.debug_barrier()
        if tl.atomic_add(arrivals + first, 1, sem="acq_rel") == last - first:
            tl.debug_barrier()
            _merge(
                *(partial, stats, first, last, out, factor),
                *(GROUP, HEAD_DIM, BLOCK_ROWS, BLOCK_D, AT_ONCE),
            )
            tl.store(arrivals + first, 0)
