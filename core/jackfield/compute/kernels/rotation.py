"""Rotary embedding of queries and keys by angles that somebody else has computed."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import cdiv, overlaps, power_of_2, quick

_HEADS = 8


@triton.jit
def _load(q, k, q_at, k_at, dims, is_q, is_k):
    # One of the two of each head.
    of_q = tl.load(q + q_at + dims, mask=is_q, other=0.0)
    of_k = tl.load(k + k_at + dims, mask=is_k, other=0.0)
    return of_q.to(tl.float32) + of_k.to(tl.float32)


@triton.jit
def _store(y, q_out, k_out, q_at, k_at, dims, is_q, is_k):
    tl.store(q_out + q_at + dims, y.to(q_out.dtype.element_ty), mask=is_q)
    tl.store(k_out + k_at + dims, y.to(k_out.dtype.element_ty), mask=is_k)


@quick
@triton.jit
def _rotate_kernel(
    q,
    k,
    cos,
    sin,
    q_out,
    k_out,
    q_head,
    q_token,
    k_head,
    k_token,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    PDL: tl.constexpr,
):
    # BLOCK_H heads of one token, q's and then k's. A head is two halves that turn into each other,
    # and the rest, which may be none.
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)[:, None]
    HALF: tl.constexpr = ROTARY_DIM // 2
    dims = tl.arange(0, BLOCK_HALF)[None, :]
    live = dims < HALF
    is_q = heads < NUM_HEADS
    is_k = (heads >= NUM_HEADS) & (heads < NUM_HEADS + NUM_KV_HEADS)
    q_from = token * q_token + heads * q_head
    k_from = token * k_token + (heads - NUM_HEADS) * k_head
    q_to = (token * NUM_HEADS + heads) * HEAD_DIM
    k_to = (token * NUM_KV_HEADS + heads - NUM_HEADS) * HEAD_DIM
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    angles = token * ROTARY_DIM + dims
    cos_a = tl.load(cos + angles, mask=live, other=0.0).to(tl.float32)
    cos_b = tl.load(cos + angles + HALF, mask=live, other=0.0).to(tl.float32)
    sin_a = tl.load(sin + angles, mask=live, other=0.0).to(tl.float32)
    sin_b = tl.load(sin + angles + HALF, mask=live, other=0.0).to(tl.float32)
    a = _load(q, k, q_from, k_from, dims, is_q & live, is_k & live)
    b = _load(q, k, q_from, k_from, HALF + dims, is_q & live, is_k & live)
    _store(a * cos_a - b * sin_a, q_out, k_out, q_to, k_to, dims, is_q & live, is_k & live)
    _store(b * cos_b + a * sin_b, q_out, k_out, q_to, k_to, HALF + dims, is_q & live, is_k & live)
    if BLOCK_REST > 0:
        rest = ROTARY_DIM + tl.arange(0, BLOCK_REST)[None, :]
        live = rest < HEAD_DIM
        c = _load(q, k, q_from, k_from, rest, is_q & live, is_k & live)
        _store(c, q_out, k_out, q_to, k_to, rest, is_q & live, is_k & live)


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q [H, T, D] and k [K, T, D], of any strides but in D, rotated by cos and sin [T, R], which
    are contiguous: dimension i of the first R / 2 with i + R / 2, the rest of R .. D passes
    through. In q's and k's dtypes, as [T, H, D] and [T, K, D]."""
    num_heads, num_tokens, head_dim = q.shape
    num_kv_heads, rotary_dim = len(k), cos.shape[-1]
    q_out = torch.empty((num_tokens, num_heads, head_dim), dtype=q.dtype, device=q.device)
    k_out = torch.empty((num_tokens, num_kv_heads, head_dim), dtype=k.dtype, device=k.device)
    if not num_tokens:
        return q_out, k_out
    rest, pdl = head_dim - rotary_dim, overlaps(q)
    _rotate_kernel[(num_tokens, cdiv(num_heads + num_kv_heads, _HEADS))](
        q,
        k,
        cos,
        sin,
        q_out,
        k_out,
        q.stride(0),
        q.stride(1),
        k.stride(0),
        k.stride(1),
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        ROTARY_DIM=rotary_dim,
        BLOCK_H=_HEADS,
        BLOCK_HALF=power_of_2(rotary_dim // 2),
        BLOCK_REST=power_of_2(rest) if rest else 0,
        PDL=pdl,
        num_warps=4,
        launch_pdl=pdl,
    )
    return q_out, k_out
