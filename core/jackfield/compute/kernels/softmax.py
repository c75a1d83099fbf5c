"""One tile of attention with a running softmax, shared by the attention kernels.

Scores are kept in base 2 (their logarithm divided by ln 2), so that the exponential is one
instruction: FlashAttention-2 (arXiv 2307.08691), section 3.1.
"""

import triton
import triton.language as tl

MASKED = tl.constexpr(-1.0e30)


@triton.jit
def as_factor(q, pages):
    """Queries as they are multiplied by what the pages hold: float16 where that is 8-bit floats,
    which are converted to it exactly and quickly. A query that float16 cannot hold is cut off."""
    if pages.dtype.element_ty.is_fp8() and q.dtype == tl.bfloat16:
        LARGEST: tl.constexpr = 65504.0
        return tl.minimum(tl.maximum(q.to(tl.float32), -LARGEST), LARGEST).to(tl.float16)
    else:
        return q


@triton.jit
def soft_capped(scores, scale, SOFT_CAP: tl.constexpr):
    """SOFT_CAP * tanh(scores * scale / SOFT_CAP), in base 2; scale comes in base 2 too."""
    LN2: tl.constexpr = 0.6931471805599453
    LOG2E: tl.constexpr = 1.4426950408889634
    x = scores * (scale * (LN2 / SOFT_CAP))
    return (2.0 * tl.sigmoid(2.0 * x) - 1.0) * (SOFT_CAP * LOG2E)


@triton.jit
def before_any_key(sinks, heads, has_sink, HAS_SINKS: tl.constexpr):
    """The running m and denom [M] to begin with: nothing, or of rows with ``has_sink`` the sink of
    their head, a score whose value is zero. ``sinks`` float32 [H], ``heads`` [M]."""
    if HAS_SINKS:
        LOG2E: tl.constexpr = 1.4426950408889634
        sink = tl.load(sinks + heads, mask=has_sink, other=MASKED)
        return sink * LOG2E, has_sink.to(tl.float32)
    else:
        nothing = tl.zeros(heads.shape, tl.float32)
        return nothing + MASKED, nothing


@triton.jit
def add_tile(
    q, k, values, m, denom, accs, visible, scale, SOFT_CAP: tl.constexpr, MASK: tl.constexpr
):
    """Takes keys k [N, D] and values into the running m [M], denom [M] and sums.

    ``values`` [N, D / n] are n tensors that have some dimensions each, ``accs`` [M, D / n] are
    their sums. ``visible`` [M, N] or broadcastable; read only where MASK. float32 is split in three
    tf32 parts for the tensor cores (``tf32x3``). Keys and values of 8 bits become what q is."""
    scores = tl.dot(q, tl.trans(k.to(q.dtype)), input_precision="tf32x3")
    if SOFT_CAP > 0:
        scores = soft_capped(scores, scale, SOFT_CAP)
        scale = 1.0
    if MASK:
        # Scaled before it is masked: fused multiply-add would leave the rounding error of
        # MASKED * scale, an enormous number, in the exponent of a row that sees nothing here.
        scores = tl.where(visible, scores * scale, MASKED)
        new_m = tl.maximum(m, tl.max(scores, 1))
        p = tl.exp2(scores - new_m[:, None])
    else:
        new_m = tl.maximum(m, tl.max(scores, 1) * scale)
        p = tl.exp2(scores * scale - new_m[:, None])
    alpha = tl.exp2(m - new_m)
    denom = denom * alpha + tl.sum(p, 1)
    p = p.to(q.dtype)
    added = ()
    for i in tl.static_range(len(accs)):
        acc = accs[i] * alpha[:, None]
        acc = tl.dot(p, values[i].to(q.dtype), acc, input_precision="tf32x3")
        added += (acc,)  # type: ignore[assignment]
    return new_m, denom, added


@triton.jit
def places_in_page(
    page,
    start,
    head,
    NUM_KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
):
    """Row of [N * K * block_size, D] of each token of the tile that begins at ``start``, in
    ``page``, which has all of it."""
    row = (page.to(tl.int64) * NUM_KV_HEADS + head) * BLOCK_SIZE
    return row + start % BLOCK_SIZE + tl.arange(0, TILE)


@triton.jit
def page_places(
    table,
    start,
    tokens,
    valid,
    head,
    NUM_KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
):
    """The same of whatever pages ``table`` says."""
    if BLOCK_SIZE % TILE == 0:
        page = tl.load(table + start // BLOCK_SIZE)
        return places_in_page(page, start, head, NUM_KV_HEADS, BLOCK_SIZE, TILE)
    else:
        pages = tl.load(table + tokens // BLOCK_SIZE, mask=valid, other=0).to(tl.int64)
        return (pages * NUM_KV_HEADS + head) * BLOCK_SIZE + tokens % BLOCK_SIZE
