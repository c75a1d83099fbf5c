"""A mixture of experts: each token times the experts that it has.

Four launches: between ``route`` and ``add_picks`` the two products, in which a program takes a
block of one expert's picks and some of its outputs. Where experts have few picks the weights are
the wide side of the product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from jackfield.compute.kernels.activation import gated
from jackfield.compute.kernels.expert_routing import (
    Routed,
    add_picks,
    find_block,
    num_blocks,
    route,
)
from jackfield.compute.kernels.launch import (
    LARGE_ROOM,
    cdiv,
    overlaps,
    power_of_2,
    quick,
    shared_bytes,
)


@triton.jit
def _product(x, w, acc, WIDE: tl.constexpr):
    # x [M, K] and w [N, K] to acc [M, N], or [N, M] where WIDE.
    if WIDE:
        return tl.dot(w, tl.trans(x), acc, input_precision="tf32x3")
    else:
        return tl.dot(x, tl.trans(w), acc, input_precision="tf32x3")


@triton.jit
def _along(bias, ns, mask, WIDE: tl.constexpr):
    # The outputs' biases beside an accumulator, [1, N], or [N, 1] where WIDE.
    values = tl.load(bias + ns, mask=mask, other=0.0).to(tl.float32)
    return values[:, None] if WIDE else values[None, :]


@quick
@triton.jit(do_not_specialize=["num_tokens"])
def _gate_up_kernel(
    x,
    gate_up,
    bias,
    counts,
    picks,
    out,
    num_tokens,
    x_stride,
    EXPERTS: tl.constexpr,
    TOP: tl.constexpr,
    HIDDEN: tl.constexpr,
    INNER: tl.constexpr,
    BLOCK_E: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    STAGES: tl.constexpr,
    WIDE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ALPHA: tl.constexpr,
    LIMIT: tl.constexpr,
    PDL: tl.constexpr,
):
    # out[pick] = silu(gate . x) * (up . x), N of INNER. gate_up: [EXPERTS * 2 INNER, HIDDEN].
    num_parts: tl.constexpr = (INNER + N - 1) // N
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    block = tl.program_id(0) // num_parts
    expert, mine, live = find_block(counts, picks, num_tokens, block, EXPERTS, BLOCK_E, M)
    if expert >= EXPERTS:
        return
    n = tl.program_id(0) % num_parts * N
    row = expert * (2 * INNER) + n
    ks = tl.arange(0, K)
    rows = x + (mine // TOP).to(tl.int64)[:, None] * x_stride + ks[None, :]
    if WIDE:
        gate = tl.zeros((N, M), tl.float32)
        up = tl.zeros((N, M), tl.float32)
    else:
        gate = tl.zeros((M, N), tl.float32)
        up = tl.zeros((M, N), tl.float32)
    for k in tl.range(0, HIDDEN, K, num_stages=STAGES):
        some = tl.load(rows + k, mask=live[:, None] & (k + ks < HIDDEN)[None, :], other=0.0)
        gate = _product(some, gate_up.load([row, k]), gate, WIDE)
        up = _product(some, gate_up.load([row + INNER, k]), up, WIDE)
    ns = n + tl.arange(0, N)
    if HAS_BIAS:
        gate += _along(bias + row - n, ns, ns < INNER, WIDE)
        up += _along(bias + row - n + INNER, ns, ns < INNER, WIDE)
    inner = gated(gate, up, ALPHA, LIMIT)
    if WIDE:
        place = mine.to(tl.int64)[None, :] * INNER + ns[:, None]
        mask = live[None, :] & (ns < INNER)[:, None]
    else:
        place = mine.to(tl.int64)[:, None] * INNER + ns[None, :]
        mask = live[:, None] & (ns < INNER)[None, :]
    tl.store(out + place, inner.to(out.dtype.element_ty), mask=mask)


@quick
@triton.jit(do_not_specialize=["num_tokens"])
def _down_kernel(
    inner,
    down,
    bias,
    counts,
    picks,
    weights,
    out,
    num_tokens,
    EXPERTS: tl.constexpr,
    HIDDEN: tl.constexpr,
    INNER: tl.constexpr,
    BLOCK_E: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    STAGES: tl.constexpr,
    WIDE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PDL: tl.constexpr,
):
    # out[pick] = weight * (down . inner), N of HIDDEN. down: [EXPERTS * HIDDEN, INNER].
    num_parts: tl.constexpr = (HIDDEN + N - 1) // N
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    block = tl.program_id(0) // num_parts
    expert, mine, live = find_block(counts, picks, num_tokens, block, EXPERTS, BLOCK_E, M)
    if expert >= EXPERTS:
        return
    n = tl.program_id(0) % num_parts * N
    ks = tl.arange(0, K)
    rows = inner + mine.to(tl.int64)[:, None] * INNER + ks[None, :]
    if WIDE:
        acc = tl.zeros((N, M), tl.float32)
    else:
        acc = tl.zeros((M, N), tl.float32)
    for k in tl.range(0, INNER, K, num_stages=STAGES):
        some = tl.load(rows + k, mask=live[:, None] & (k + ks < INNER)[None, :], other=0.0)
        acc = _product(some, down.load([expert * HIDDEN + n, k]), acc, WIDE)
    share = tl.load(weights + mine, mask=live, other=0.0)
    ns = n + tl.arange(0, N)
    if HAS_BIAS:
        acc += _along(bias + expert * HIDDEN, ns, ns < HIDDEN, WIDE)
    if WIDE:
        place = mine.to(tl.int64)[None, :] * HIDDEN + ns[:, None]
        mask = live[None, :] & (ns < HIDDEN)[:, None]
        acc *= share[None, :]
    else:
        place = mine.to(tl.int64)[:, None] * HIDDEN + ns[None, :]
        mask = live[:, None] & (ns < HIDDEN)[None, :]
        acc *= share[:, None]
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=mask)


@dataclass(frozen=True, slots=True)
class ProductConfig:
    """Picks, outputs and inner elements of a tile, pipeline stages, warps; ``wide``: the outputs
    are the wide side."""

    m: int
    n: int
    k: int
    stages: int
    warps: int
    wide: bool


def _wide(m: int, n: int, k: int, stages: int) -> ProductConfig:
    return ProductConfig(m, n, k, stages, 4, True)


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """How the two products are cut."""

    gate_up: ProductConfig
    down: ProductConfig


# By the mean number of picks an expert has, up to which a way of cutting is the best.
_MEASURED = (
    (4, ExpertsConfig(_wide(16, 32, 256, 3), _wide(16, 64, 128, 2))),
    (10, ExpertsConfig(_wide(16, 64, 128, 3), _wide(16, 64, 64, 5))),
    (20, ExpertsConfig(_wide(32, 64, 64, 5), _wide(32, 64, 64, 4))),
    (40, ExpertsConfig(_wide(64, 64, 64, 4), _wide(64, 128, 64, 3))),
    (80, ExpertsConfig(_wide(64, 64, 64, 4), ProductConfig(64, 128, 64, 3, 4, False))),
    (
        math.inf,
        ExpertsConfig(
            ProductConfig(128, 128, 64, 4, 8, False), ProductConfig(128, 128, 64, 3, 8, False)
        ),
    ),
)


def experts_config(num_picks: int, num_experts: int, itemsize: int, room: int) -> ExpertsConfig:
    """Where a program may have ``room`` bytes of shared memory. What measured best on an H200 for
    experts of 2048 x 768 in bfloat16."""
    if itemsize > 2:
        product = ProductConfig(16, 32, 32, 2, 4, True)
        return ExpertsConfig(product, product)
    mean = num_picks / num_experts
    best = next(config for most, config in _MEASURED if mean <= most)
    if room < LARGE_ROOM:
        # Not measured: two buffers of the largest tiles are 96 KiB.
        fewer = replace(best.gate_up, stages=min(best.gate_up.stages, 3))
        return replace(best, gate_up=fewer)
    return best


def _rows(weight: Tensor, config: ProductConfig) -> TensorDescriptor:
    rows = weight.view(-1, weight.shape[-1])
    return TensorDescriptor.from_tensor(rows, [config.n, config.k])


def experts(
    x: Tensor,
    logits: Tensor,
    gate_up: Tensor,
    down: Tensor,
    *,
    top_k: int,
    renormalize: bool,
    biases: tuple[Tensor, Tensor | None] | None = None,
    clamp: tuple[float, float] | None = None,
    config: ExpertsConfig | None = None,
) -> Tensor:
    """Each row of x [T, H] through the ``top_k`` experts of the largest ``logits`` [T, E], weighted
    by their softmax over all (``renormalize``: over the chosen) -> [T, H].

    gate_up [E, 2I, H], the gate first; down [E, H, I]. An expert is down(silu(gate x) * up x), or
    with ``clamp`` (alpha, limit) has ``ops.clamped_swiglu`` between. ``biases``: [E, 2I] of gate_up
    and [E, H] of down (None: another worker adds it).
    """
    num_tokens, num_experts = x.shape[0], len(down)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not num_tokens:
        return out
    gate_up_bias, down_bias = biases or (None, None)
    if config is None:
        room = shared_bytes(x.device)
        config = experts_config(num_tokens * top_k, num_experts, x.element_size(), room)
    routed = route(logits, top_k=top_k, renormalize=renormalize)
    activated = _activated(x, gate_up, gate_up_bias, routed, config.gate_up, clamp, top_k)
    picked = _picked(activated, down, down_bias, routed, config.down, num_tokens)
    add_picks(picked, routed, out)
    return out


def _activated(
    x: Tensor,
    gate_up: Tensor,
    bias: Tensor | None,
    routed: Routed,
    config: ProductConfig,
    clamp: tuple[float, float] | None,
    top_k: int,
) -> Tensor:
    """What is between the products of each pick -> [T * top_k, I]."""
    num_tokens, hidden = x.shape
    num_experts, inner = len(gate_up), gate_up.shape[1] // 2
    alpha, limit = clamp or (1.0, 0.0)
    num_picks, pdl = num_tokens * top_k, overlaps(x)
    activated = torch.empty((num_picks, inner), dtype=x.dtype, device=x.device)
    _gate_up_kernel[(num_blocks(num_picks, num_experts, config.m) * cdiv(inner, config.n),)](
        x,
        _rows(gate_up, config),
        x if bias is None else bias,
        routed.counts,
        routed.picks,
        activated,
        num_tokens,
        x.stride(0),
        EXPERTS=num_experts,
        TOP=top_k,
        HIDDEN=hidden,
        INNER=inner,
        BLOCK_E=power_of_2(num_experts),
        M=config.m,
        N=config.n,
        K=config.k,
        STAGES=config.stages,
        WIDE=config.wide,
        HAS_BIAS=bias is not None,
        ALPHA=alpha,
        LIMIT=limit,
        PDL=pdl,
        num_warps=config.warps,
        launch_pdl=pdl,
    )
    return activated


def _picked(
    activated: Tensor,
    down: Tensor,
    bias: Tensor | None,
    routed: Routed,
    config: ProductConfig,
    num_tokens: int,
) -> Tensor:
    """What each pick gives, by its share -> [T * top_k, H]."""
    num_picks, inner = activated.shape
    num_experts, hidden = down.shape[:2]
    pdl = overlaps(activated)
    picked = torch.empty((num_picks, hidden), dtype=activated.dtype, device=activated.device)
    _down_kernel[(num_blocks(num_picks, num_experts, config.m) * cdiv(hidden, config.n),)](
        activated,
        _rows(down, config),
        activated if bias is None else bias,
        routed.counts,
        routed.picks,
        routed.shares,
        picked,
        num_tokens,
        EXPERTS=num_experts,
        HIDDEN=hidden,
        INNER=inner,
        BLOCK_E=power_of_2(num_experts),
        M=config.m,
        N=config.n,
        K=config.k,
        STAGES=config.stages,
        WIDE=config.wide,
        HAS_BIAS=bias is not None,
        PDL=pdl,
        num_warps=config.warps,
        launch_pdl=pdl,
    )
    return picked
