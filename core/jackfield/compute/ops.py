"""The small operations between matrix products: Triton kernels on a GPU, C on the CPU.

Where nothing compiles C, an operation is a handful of torch calls over the whole batch: a call
costs about a microsecond before it computes anything. Arithmetic is in float32, rounded once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.largest import most_likely
from jackfield.compute.native import kernels_for

_CACHED_TOKENS = 128
"""Tokens at a time where an operation has float32 intermediates: they stay in the cache."""

# The kernels are imported where they are called: a machine without a GPU may have no Triton.


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., N], weight [N] -> x / sqrt(mean(x^2) + eps) * weight, in x's dtype."""
    if x.is_cuda:
        from jackfield.compute.kernels import norm

        return norm.rms_norm(x, weight, eps)
    kernels = kernels_for(x.dtype)
    if kernels is not None and weight.dtype is x.dtype:
        return kernels.rms_norm(x, weight, eps)
    return _to_unit_rms(x.to(torch.float32, copy=True), eps).mul_(weight).to(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x, residual [T, N] -> (rms_norm(x + residual), x + residual).

    ``residual`` is updated in place and is the second result.
    """
    if x.is_cuda:
        from jackfield.compute.kernels import norm

        return norm.add_rms_norm(x, residual, weight, eps)
    kernels = kernels_for(x.dtype)
    if kernels is not None and weight.dtype is x.dtype and residual.is_contiguous():
        return kernels.add_rms_norm(x, residual, weight, eps)
    residual.add_(x)
    return rms_norm(residual, weight, eps), residual


def silu_and_mul(x: Tensor) -> Tensor:
    """x [T, 2I], the gate first -> silu(gate) * up, [T, I]."""
    if x.is_cuda:
        from jackfield.compute.kernels import activation

        return activation.silu_and_mul(x)
    kernels = kernels_for(x.dtype)
    if kernels is not None:
        return kernels.silu_and_mul(x)
    num_tokens, width = x.shape
    out = torch.empty((num_tokens, width // 2), dtype=x.dtype)
    for start in range(0, num_tokens, _CACHED_TOKENS):
        some = slice(start, start + _CACHED_TOKENS)
        gate, up = x[some].chunk(2, dim=-1)
        torch.mul(F.silu(gate), up, out=out[some])
    return out


def gelu_and_mul(x: Tensor) -> Tensor:
    """x [T, 2I], the gate first -> gelu(gate) * up, [T, I], the GELU approximated by tanh."""
    if x.is_cuda:
        from jackfield.compute.kernels import activation

        return activation.gelu_and_mul(x)
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def clamped_swiglu(x: Tensor, alpha: float, limit: float) -> Tensor:
    """x [T, 2I], the gate g first, then u -> g' * sigmoid(alpha * g') * (u' + 1), [T, I], with g'
    at most ``limit`` and u' between - ``limit`` and ``limit``: the gate of gpt-oss."""
    gate, up = x.chunk(2, dim=-1)
    gate = gate.clamp(max=limit)
    return (up.clamp(-limit, limit) + 1) * (gate * torch.sigmoid(gate * alpha))


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
    """Splits the packed projection, normalizes each head of q and k, and rotates them.

    qkv [T, (H + 2K) * D]; positions int64 [T]; cos_sin float32 [P, R], R/2 cosines and then R/2
    sines of each position; weights [D], None where the model has no such norm. Dimension i of
    the first R is rotated with dimension i + R/2, the rest of a head passes through. Returns q
    [T, H, D], k [T, K, D] and v [T, K, D] in qkv's dtype, perhaps as views.
    """
    if qkv.is_cuda:
        from jackfield.compute.kernels import rotary

        return rotary.qk_norm_rope(
            qkv, positions, cos_sin, q_weight, k_weight, eps, num_heads, num_kv_heads, head_dim
        )
    heads = qkv.view(qkv.shape[0], num_heads + 2 * num_kv_heads, head_dim)
    qk, v = heads[:, : num_heads + num_kv_heads], heads[:, num_heads + num_kv_heads :]
    angles = cos_sin.index_select(0, positions)
    turned = torch.empty(qk.shape, dtype=qkv.dtype)
    for start in range(0, len(qk), _CACHED_TOKENS):
        some = slice(start, start + _CACHED_TOKENS)
        wide = qk[some].to(torch.float32, copy=True)
        _norm_heads(wide, q_weight, k_weight, eps, num_heads)
        _rotate(wide, angles[some], turned[some])
    return turned[:, :num_heads], turned[:, num_heads:], v


def choose_greedily(logits: Tensor, rows: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    """The first of the largest of each row of logits [N, V], int32 [N]; -1 where that is no finite
    number or the row has a NaN. Written (some token then) to ``token_ids`` int32 [R, M] at
    ``rows``, ``positions``, int64 [N] both."""
    if logits.is_cuda:
        from jackfield.compute.kernels import greedy

        return greedy.choose_greedily(logits, rows, positions, token_ids)
    kernels = kernels_for(logits.dtype)
    if kernels is not None:
        return kernels.choose_greedily(logits, rows, positions, token_ids)
    ids = most_likely(logits)
    token_ids.view(-1).index_copy_(0, rows * token_ids.shape[1] + positions, ids.int())
    peaks = logits.gather(1, ids.unsqueeze(1)).squeeze(1)
    return torch.where(torch.isfinite(peaks), ids, -1).int()


def _norm_heads(
    wide: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, eps: float, num_heads: int
) -> None:
    # wide float32 [T, H + K, D], in place.
    if q_weight is not None and k_weight is not None:
        _to_unit_rms(wide, eps)
        wide[:, :num_heads].mul_(q_weight)
        wide[:, num_heads:].mul_(k_weight)
    elif q_weight is not None:
        _to_unit_rms(wide[:, :num_heads], eps).mul_(q_weight)
    elif k_weight is not None:
        _to_unit_rms(wide[:, num_heads:], eps).mul_(k_weight)


def _to_unit_rms(x: Tensor, eps: float) -> Tensor:
    # float32 [..., N], in place. vector_norm reads its input once, where squaring and taking the
    # mean writes the squares first.
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x.mul_(scale.square_().mul_(1.0 / x.shape[-1]).add_(eps).rsqrt_())


def _rotate(x: Tensor, angles: Tensor, out: Tensor) -> None:
    # x float32 [T, N, D], angles float32 [T, R]: cosines, then sines; out [T, N, D].
    num_tokens, num_heads, _ = x.shape
    half = angles.shape[-1] // 2
    cos, sin = angles.view(num_tokens, 1, 2, half).unbind(2)
    halves = x[..., : 2 * half].view(num_tokens, num_heads, 2, half)
    turned = halves * cos.unsqueeze(2)
    left, right = halves.unbind(2)
    turned_left, turned_right = turned.unbind(2)
    turned_left.addcmul_(right, sin, value=-1)
    turned_right.addcmul_(left, sin)
    if 2 * half == x.shape[-1]:
        out.copy_(turned.view(x.shape))
        return
    out[..., : 2 * half] = turned.view(num_tokens, num_heads, 2 * half)
    out[..., 2 * half :] = x[..., 2 * half :]
