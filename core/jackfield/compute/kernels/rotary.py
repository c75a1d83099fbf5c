"""From packed q, k, v to what attention reads: RMSNorm a head, rotary embedding, KV write."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.kv_write import as_stored, load_unit
from jackfield.compute.kernels.launch import cdiv, overlaps, power_of_2, quick

_FEW_HEADS, _SOME_HEADS, _MANY_HEADS = 2048, 4096, 1 << 18
"""Of all tokens together: a program takes 1, 4 or 8 of up to so many, and 16 of more."""


@triton.jit
def _weights(q_weight, k_weight, is_q, places, mask, NORM_Q: tl.constexpr, NORM_K: tl.constexpr):
    # Norm weights of each head, 1 where the model has none.
    w = tl.full(mask.shape, 1.0, tl.float32)
    if NORM_Q:
        w = tl.where(is_q, tl.load(q_weight + places, mask=mask, other=0.0).to(tl.float32), w)
    if NORM_K:
        w = tl.where(is_q, w, tl.load(k_weight + places, mask=mask, other=0.0).to(tl.float32))
    return w


@triton.jit
def _store(
    y,
    raw,
    token,
    heads,
    dims,
    live,
    q_out,
    k_out,
    key_pages,
    value_pages,
    unit,
    slot,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WRITE: tl.constexpr,
):
    y = y.to(raw.dtype)
    is_q = heads < NUM_HEADS
    is_k = (heads >= NUM_HEADS) & (heads < NUM_HEADS + NUM_KV_HEADS)
    tl.store(q_out + (token * NUM_HEADS + heads) * HEAD_DIM + dims, y, mask=live & is_q)
    kv_heads = heads - NUM_HEADS
    k_place = (token * NUM_KV_HEADS + kv_heads) * HEAD_DIM + dims
    tl.store(k_out + k_place, y, mask=live & is_k)
    if WRITE:
        # Another head is of keys or of values: it is made ready once, and stored once.
        kv_heads = tl.where(is_k, kv_heads, kv_heads - NUM_KV_HEADS)
        page = slot // BLOCK_SIZE * NUM_KV_HEADS
        place = ((page + kv_heads) * BLOCK_SIZE + slot % BLOCK_SIZE) * HEAD_DIM + dims
        new = as_stored(tl.where(is_k, y, raw), unit, key_pages)
        tl.store(
            tl.where(is_k, key_pages, value_pages) + place, new, mask=live & (heads >= NUM_HEADS)
        )


@quick
@triton.jit(do_not_specialize_on_alignment=["positions", "slots", "scales"])
def _qk_norm_rope_kernel(
    qkv,
    positions,
    cos_sin,
    q_weight,
    k_weight,
    q_out,
    k_out,
    key_pages,
    value_pages,
    scales,
    slots,
    qkv_stride,
    eps,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    NORM_Q: tl.constexpr,
    NORM_K: tl.constexpr,
    WRITE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    PDL: tl.constexpr,
):
    # One program turns BLOCK_H heads of one token. Heads: q, then k, then (WRITE) v. A head is in
    # three pieces: two that turn into each other, and the rest, which may be none.
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)[:, None]
    HALF: tl.constexpr = ROTARY_DIM // 2
    dims = tl.arange(0, BLOCK_HALF)[None, :]
    is_q = heads < NUM_HEADS
    is_qk = heads < NUM_HEADS + NUM_KV_HEADS
    present = heads < NUM_HEADS + (2 if WRITE else 1) * NUM_KV_HEADS
    live = present & (dims < HALF)
    rest = ROTARY_DIM + tl.arange(0, BLOCK_REST if BLOCK_REST > 0 else 1)[None, :]
    live_rest = present & (rest < HEAD_DIM)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    # None of these is what the launch before this one writes.
    angles = cos_sin + tl.load(positions + token) * ROTARY_DIM + dims
    cos = tl.load(angles, mask=dims < HALF, other=1.0)
    sin = tl.load(angles + HALF, mask=dims < HALF, other=0.0)
    slot = tl.load(slots + token) if WRITE else token
    is_v = heads >= NUM_HEADS + NUM_KV_HEADS
    unit = load_unit(scales + is_v.to(tl.int32), key_pages)
    weight_a = _weights(q_weight, k_weight, is_q, dims, live, NORM_Q, NORM_K)
    weight_b = _weights(q_weight, k_weight, is_q, HALF + dims, live, NORM_Q, NORM_K)
    weight_c = _weights(q_weight, k_weight, is_q, rest, live_rest, NORM_Q, NORM_K)
    if PDL:
        tl.extra.cuda.gdc_wait()
    source = qkv + token * qkv_stride + heads * HEAD_DIM
    raw_a = tl.load(source + dims, mask=live, other=0.0)
    raw_b = tl.load(source + HALF + dims, mask=live, other=0.0)
    a, b = raw_a.to(tl.float32), raw_b.to(tl.float32)
    squares = tl.sum(a * a, 1) + tl.sum(b * b, 1)
    if BLOCK_REST > 0:
        raw_c = tl.load(source + rest, mask=live_rest, other=0.0)
        c = raw_c.to(tl.float32)
        squares += tl.sum(c * c, 1)
    if NORM_Q or NORM_K:
        normed = (is_q & NORM_Q) | (is_qk & (heads >= NUM_HEADS) & NORM_K)
        scale = tl.where(normed, tl.rsqrt(squares / HEAD_DIM + eps)[:, None], 1.0)
        a *= scale * weight_a
        b *= scale * weight_b
        if BLOCK_REST > 0:
            c *= scale * weight_c
    for piece in tl.static_range(3 if BLOCK_REST > 0 else 2):
        if piece == 0:
            y, raw, at, mask = a * cos - b * sin, raw_a, dims, live
        elif piece == 1:
            y, raw, at, mask = b * cos + a * sin, raw_b, HALF + dims, live
        else:
            y, raw, at, mask = c, raw_c, rest, live_rest
        _store(
            y,
            raw,
            token,
            heads,
            at,
            mask,
            q_out,
            k_out,
            key_pages,
            value_pages,
            unit,
            slot,
            NUM_HEADS,
            NUM_KV_HEADS,
            HEAD_DIM,
            BLOCK_SIZE,
            WRITE,
        )


def _cut(num_heads: int) -> tuple[int, int]:
    """(Heads, warps) of a program: a small step is bound by latency (a program a head), a large one
    by programs."""
    if num_heads <= _FEW_HEADS:
        return 1, 1
    if num_heads <= _SOME_HEADS:
        return 4, 4
    return (8, 4) if num_heads <= _MANY_HEADS else (16, 2)


def _launch(
    qkv: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    weights: tuple[Tensor | None, Tensor | None],
    eps: float,
    heads: tuple[int, int, int],
    pages: tuple[Tensor, Tensor, Tensor, Tensor | None] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    num_heads, num_kv_heads, head_dim = heads
    num_tokens = qkv.shape[0]
    q = torch.empty((num_tokens, num_heads, head_dim), dtype=qkv.dtype, device=qkv.device)
    k = torch.empty((num_tokens, num_kv_heads, head_dim), dtype=qkv.dtype, device=qkv.device)
    v = qkv[:, (num_heads + num_kv_heads) * head_dim :].unflatten(1, (num_kv_heads, head_dim))
    if not num_tokens:
        return q, k, v
    q_weight, k_weight = weights
    key_pages, value_pages, slots, scales = pages or (k, k, positions, None)
    turned = num_heads + (2 if pages is not None else 1) * num_kv_heads
    block_h, num_warps = _cut(num_tokens * turned)
    rest = head_dim - cos_sin.shape[1]
    pdl = overlaps(qkv)
    _qk_norm_rope_kernel[(num_tokens, cdiv(turned, block_h))](
        qkv,
        positions,
        cos_sin,
        q_weight if q_weight is not None else qkv,
        k_weight if k_weight is not None else qkv,
        q,
        k,
        key_pages,
        value_pages,
        k if scales is None else scales,
        slots,
        qkv.stride(0),
        eps,
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        ROTARY_DIM=cos_sin.shape[1],
        BLOCK_SIZE=key_pages.shape[2] if pages is not None else 1,
        NORM_Q=q_weight is not None,
        NORM_K=k_weight is not None,
        WRITE=pages is not None,
        BLOCK_H=block_h,
        BLOCK_HALF=power_of_2(cos_sin.shape[1] // 2),
        BLOCK_REST=power_of_2(rest) if rest else 0,
        PDL=pdl,
        num_warps=num_warps,
        launch_pdl=pdl,
    )
    return q, k, v


def qk_norm_rope(
    qkv: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    eps: float,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [T, (H + 2K) * D], positions int64 [T], cos_sin float32 [P, rotary] (cosines, then sines,
    rotary / 2 each), weights [D] or None -> q [T, H, D], k [T, K, D] and v [T, K, D], a view of
    qkv. The halves of the first ``rotary`` dimensions are rotated, the rest passes through.

    All but qkv is read before the launch before this one has ended: that may not be the one that
    writes it."""
    heads = (num_heads, num_kv_heads, head_dim)
    return _launch(qkv, positions, cos_sin, (q_weight, k_weight), eps, heads, None)


def qk_norm_rope_write(
    qkv: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    eps: float,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    key_pages: Tensor,
    value_pages: Tensor,
    slots: Tensor,
    scales: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``qk_norm_rope`` that also stores k and v in pages [N, K, block_size, D] at ``slots``
    int64 [T], as ``kv_write`` does; one kernel. ``slots`` are read as early as positions."""
    heads = (num_heads, num_kv_heads, head_dim)
    pages = (key_pages, value_pages, slots, scales)
    return _launch(qkv, positions, cos_sin, (q_weight, k_weight), eps, heads, pages)
