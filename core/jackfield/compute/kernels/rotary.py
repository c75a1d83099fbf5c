"""From packed q, k, v to what attention reads: RMSNorm a head, rotary embedding, KV write."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import overlaps, power_of_2, quick

_HEADS_A_PROGRAM = 8
_FEW_PROGRAMS = 2048


@triton.jit
def _normed(a, b, weight, dims, partner, live, eps, HEAD_DIM: tl.constexpr):
    # b holds the same head as a, each dimension's rotation partner in its place.
    scale = tl.rsqrt(tl.sum(a * a, 1) / HEAD_DIM + eps)[:, None]
    here = tl.load(weight + dims, mask=live, other=0.0).to(tl.float32)
    there = tl.load(weight + partner, mask=live, other=0.0).to(tl.float32)
    return a * scale * here, b * scale * there


@quick
@triton.jit(do_not_specialize_on_alignment=["positions", "slots"])
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
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr,
):
    # One program turns BLOCK_H heads of one token. Heads: q, then k, then (WRITE) v.
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)[:, None]
    dims = tl.arange(0, BLOCK_D)[None, :]
    half: tl.constexpr = ROTARY_DIM // 2
    turned = dims < ROTARY_DIM
    partner = tl.where(dims < half, dims + half, tl.where(turned, dims - half, dims))
    live = dims < HEAD_DIM
    is_q = heads < NUM_HEADS
    is_k = (heads >= NUM_HEADS) & (heads < NUM_HEADS + NUM_KV_HEADS)
    mask = live & (heads < NUM_HEADS + (2 if WRITE else 1) * NUM_KV_HEADS)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    source = qkv + token * qkv_stride + heads * HEAD_DIM
    raw = tl.load(source + dims, mask=mask, other=0.0)
    a = raw.to(tl.float32)
    b = tl.load(source + partner, mask=mask, other=0.0).to(tl.float32)
    if NORM_Q:
        na, nb = _normed(a, b, q_weight, dims, partner, live, eps, HEAD_DIM)
        a = tl.where(is_q, na, a)
        b = tl.where(is_q, nb, b)
    if NORM_K:
        na, nb = _normed(a, b, k_weight, dims, partner, live, eps, HEAD_DIM)
        a = tl.where(is_k, na, a)
        b = tl.where(is_k, nb, b)
    angles = cos_sin + tl.load(positions + token) * ROTARY_DIM + dims % half
    cos = tl.load(angles, mask=turned, other=1.0)
    sin = tl.load(angles + half, mask=turned, other=0.0)
    y = (a * cos + tl.where(dims < half, -b, b) * sin).to(raw.dtype)
    tl.store(q_out + (token * NUM_HEADS + heads) * HEAD_DIM + dims, y, mask=live & is_q)
    kv_heads = heads - NUM_HEADS
    k_place = (token * NUM_KV_HEADS + kv_heads) * HEAD_DIM + dims
    tl.store(k_out + k_place, y, mask=live & is_k)
    if WRITE:
        slot = tl.load(slots + token)
        page = slot // BLOCK_SIZE * NUM_KV_HEADS
        place = (page + kv_heads) * BLOCK_SIZE + slot % BLOCK_SIZE
        tl.store(key_pages + place * HEAD_DIM + dims, y, mask=live & is_k)
        place -= NUM_KV_HEADS * BLOCK_SIZE
        is_v = heads >= NUM_HEADS + NUM_KV_HEADS
        tl.store(value_pages + place * HEAD_DIM + dims, raw, mask=mask & is_v)


def _launch(
    qkv: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    weights: tuple[Tensor | None, Tensor | None],
    eps: float,
    heads: tuple[int, int, int],
    pages: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    num_heads, num_kv_heads, head_dim = heads
    num_tokens = qkv.shape[0]
    q = torch.empty((num_tokens, num_heads, head_dim), dtype=qkv.dtype, device=qkv.device)
    k = torch.empty((num_tokens, num_kv_heads, head_dim), dtype=qkv.dtype, device=qkv.device)
    v = qkv[:, (num_heads + num_kv_heads) * head_dim :].unflatten(1, (num_kv_heads, head_dim))
    if not num_tokens:
        return q, k, v
    q_weight, k_weight = weights
    key_pages, value_pages, slots = pages if pages is not None else (k, k, positions)
    turned = num_heads + (2 if pages is not None else 1) * num_kv_heads
    # A small step is bound by latency (a program a head), a large one by programs.
    block_h = 1 if num_tokens * turned <= _FEW_PROGRAMS else _HEADS_A_PROGRAM
    pdl = overlaps(qkv)
    _qk_norm_rope_kernel[(num_tokens, triton.cdiv(turned, block_h))](
        qkv,
        positions,
        cos_sin,
        q_weight if q_weight is not None else qkv,
        k_weight if k_weight is not None else qkv,
        q,
        k,
        key_pages,
        value_pages,
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
        BLOCK_D=power_of_2(head_dim),
        PDL=pdl,
        num_warps=1 if block_h == 1 else 4,
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
    qkv. The halves of the first ``rotary`` dimensions are rotated, the rest passes through."""
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
) -> tuple[Tensor, Tensor, Tensor]:
    """``qk_norm_rope`` that also stores k and v in pages [N, K, block_size, D] at ``slots``
    int64 [T]; one kernel."""
    heads = (num_heads, num_kv_heads, head_dim)
    pages = (key_pages, value_pages, slots)
    return _launch(qkv, positions, cos_sin, (q_weight, k_weight), eps, heads, pages)
