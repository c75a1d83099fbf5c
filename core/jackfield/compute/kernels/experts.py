"""A mixture of experts: choosing experts, and multiplying each token by those it has.

Four launches. ``route`` chooses and lists the *picks* (a token and one of its experts) of each
expert. A program of the two products takes a block of one expert's picks and some of its outputs;
it finds its expert from the lists' lengths in device memory, so that the grid depends on the number
of tokens only and a captured graph serves any choice. At last the picks of a token are added in
their order. Where experts have few picks the weights are the wide side of the product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from jackfield.compute.kernels.launch import overlaps, power_of_2, quick


@quick
@triton.jit(do_not_specialize=["num_tokens"])
def _route_kernel(
    logits,
    weights,
    counts,
    picks,
    num_tokens,
    stride,
    EXPERTS: tl.constexpr,
    TOP: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_TOP: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    PDL: tl.constexpr,
):
    token = tl.program_id(0)
    experts = tl.arange(0, BLOCK_E)
    place = tl.arange(0, BLOCK_TOP)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = logits + token.to(tl.int64) * stride + experts
    x = tl.load(row, mask=experts < EXPERTS, other=float("-inf")).to(tl.float32)
    p = tl.exp(x - tl.max(x, 0))
    p = p / tl.sum(p, 0)
    # A NaN would be chosen twice; its row is spoilt, but the lists must hold.
    p = tl.where(experts < EXPERTS, tl.where(p == p, p, 0.0), -1.0)
    chosen = tl.zeros((BLOCK_TOP,), tl.int32)
    share = tl.zeros((BLOCK_TOP,), tl.float32)
    for i in tl.static_range(TOP):
        best = tl.argmax(p, 0)
        chosen = tl.where(place == i, best, chosen)
        share = tl.where(place == i, tl.max(p, 0), share)
        p = tl.where(experts == best, -1.0, p)
    if RENORMALIZE:
        share = share / tl.sum(share, 0)
    live = place < TOP
    tl.store(weights + token * TOP + place, share, mask=live)
    # Which place a pick gets in its expert's list is open; what it is multiplied by is not.
    rank = tl.atomic_add(counts + chosen, 1, mask=live)
    tl.store(picks + chosen.to(tl.int64) * num_tokens + rank, token * TOP + place, mask=live)


@triton.jit
def _find_block(
    counts, picks, num_tokens, block, EXPERTS: tl.constexpr, BLOCK_E: tl.constexpr, M: tl.constexpr
):
    # The block's expert (EXPERTS behind the last) and its picks, with those that are there.
    experts = tl.arange(0, BLOCK_E)
    lengths = tl.load(counts + experts, mask=experts < EXPERTS, other=0)
    blocks = tl.cdiv(lengths, M)
    expert = tl.sum((tl.cumsum(blocks, 0) <= block).to(tl.int32), 0)
    expert = tl.minimum(expert, EXPERTS)
    first = (block - tl.sum(tl.where(experts < expert, blocks, 0), 0)) * M
    length = tl.sum(tl.where(experts == expert, lengths, 0), 0)
    place = first + tl.arange(0, M)
    live = place < length
    mine = tl.load(picks + expert.to(tl.int64) * num_tokens + place, mask=live, other=0)
    return expert, mine, live


@triton.jit
def _product(x, w, acc, WIDE: tl.constexpr):
    # x [M, K] and w [N, K] to acc [M, N], or [N, M] where WIDE.
    if WIDE:
        return tl.dot(w, tl.trans(x), acc, input_precision="tf32x3")
    else:
        return tl.dot(x, tl.trans(w), acc, input_precision="tf32x3")


@quick
@triton.jit(do_not_specialize=["num_tokens"])
def _gate_up_kernel(
    x,
    gate_up,
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
    PDL: tl.constexpr,
):
    # out[pick] = silu(gate . x) * (up . x), N of INNER. gate_up: [EXPERTS * 2 INNER, HIDDEN].
    num_parts: tl.constexpr = (INNER + N - 1) // N
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    block = tl.program_id(0) // num_parts
    expert, mine, live = _find_block(counts, picks, num_tokens, block, EXPERTS, BLOCK_E, M)
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
    inner = gate * tl.sigmoid(gate) * up
    ns = n + tl.arange(0, N)
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
    PDL: tl.constexpr,
):
    # out[pick] = weight * (down . inner), N of HIDDEN. down: [EXPERTS * HIDDEN, INNER].
    num_parts: tl.constexpr = (HIDDEN + N - 1) // N
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    block = tl.program_id(0) // num_parts
    expert, mine, live = _find_block(counts, picks, num_tokens, block, EXPERTS, BLOCK_E, M)
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
    if WIDE:
        place = mine.to(tl.int64)[None, :] * HIDDEN + ns[:, None]
        mask = live[None, :] & (ns < HIDDEN)[:, None]
        acc *= share[None, :]
    else:
        place = mine.to(tl.int64)[:, None] * HIDDEN + ns[None, :]
        mask = live[:, None] & (ns < HIDDEN)[None, :]
        acc *= share[:, None]
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=mask)


@quick
@triton.jit
def _add_picks_kernel(
    picked,
    out,
    counts,
    EXPERTS: tl.constexpr,
    TOP: tl.constexpr,
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PDL: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    acc = tl.zeros((BLOCK,), tl.float32)
    for i in tl.static_range(TOP):
        row = picked + (token * TOP + i) * HIDDEN
        acc += tl.load(row + cols, mask=cols < HIDDEN, other=0.0).to(tl.float32)
    tl.store(out + token * HIDDEN + cols, acc.to(out.dtype.element_ty), mask=cols < HIDDEN)
    # Everybody who reads the lengths is done: the next layer starts from empty lists.
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
        experts = tl.arange(0, BLOCK_E)
        tl.store(counts + experts, tl.zeros((BLOCK_E,), tl.int32), mask=experts < EXPERTS)


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


def experts_config(num_picks: int, num_experts: int, itemsize: int) -> ExpertsConfig:
    """What measured best on an H200 for experts of 2048 x 768 in bfloat16."""
    if itemsize > 2:
        product = ProductConfig(16, 32, 32, 2, 4, True)
        return ExpertsConfig(product, product)
    mean = num_picks / num_experts
    return next(config for most, config in _MEASURED if mean <= most)


@cache
def _counts(device: torch.device, num_experts: int) -> Tensor:
    # Lengths of the lists, shared by all layers of a device; every call leaves them 0.
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    assert not capturing, "run experts once before capturing it"
    return torch.zeros(num_experts, dtype=torch.int32, device=device)


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
    config: ExpertsConfig | None = None,
) -> Tensor:
    """Each row of x [T, H] through the ``top_k`` experts of the largest ``logits`` [T, E], weighted
    by their softmax over all (``renormalize``: over the chosen) -> [T, H].

    gate_up [E, 2I, H], the gate first; down [E, H, I]. An expert is down(silu(gate x) * up x).
    """
    num_tokens, hidden = x.shape
    num_experts, _, inner = down.shape
    out = torch.empty((num_tokens, hidden), dtype=x.dtype, device=x.device)
    if not num_tokens:
        return out
    num_picks = num_tokens * top_k
    if config is None:
        config = experts_config(num_picks, num_experts, x.element_size())
    counts = _counts(x.device, num_experts)
    picks = torch.empty(num_experts * num_tokens, dtype=torch.int32, device=x.device)
    weights = torch.empty(num_picks, dtype=torch.float32, device=x.device)
    pdl = overlaps(x)
    block_e = power_of_2(num_experts)
    _route_kernel[(num_tokens,)](
        logits,
        weights,
        counts,
        picks,
        num_tokens,
        logits.stride(0),
        EXPERTS=num_experts,
        TOP=top_k,
        BLOCK_E=block_e,
        BLOCK_TOP=power_of_2(top_k),
        RENORMALIZE=renormalize,
        PDL=pdl,
        num_warps=1,
        launch_pdl=pdl,
    )
    first, second = config.gate_up, config.down
    activated = torch.empty((num_picks, inner), dtype=x.dtype, device=x.device)
    _gate_up_kernel[(_num_blocks(num_picks, num_experts, first) * triton.cdiv(inner, first.n),)](
        x,
        _rows(gate_up, first),
        counts,
        picks,
        activated,
        num_tokens,
        x.stride(0),
        EXPERTS=num_experts,
        TOP=top_k,
        HIDDEN=hidden,
        INNER=inner,
        BLOCK_E=block_e,
        M=first.m,
        N=first.n,
        K=first.k,
        STAGES=first.stages,
        WIDE=first.wide,
        PDL=pdl,
        num_warps=first.warps,
        launch_pdl=pdl,
    )
    picked = torch.empty((num_picks, hidden), dtype=x.dtype, device=x.device)
    _down_kernel[(_num_blocks(num_picks, num_experts, second) * triton.cdiv(hidden, second.n),)](
        activated,
        _rows(down, second),
        counts,
        picks,
        weights,
        picked,
        num_tokens,
        EXPERTS=num_experts,
        HIDDEN=hidden,
        INNER=inner,
        BLOCK_E=block_e,
        M=second.m,
        N=second.n,
        K=second.k,
        STAGES=second.stages,
        WIDE=second.wide,
        PDL=pdl,
        num_warps=second.warps,
        launch_pdl=pdl,
    )
    block = min(1024, power_of_2(hidden))
    _add_picks_kernel[(num_tokens, triton.cdiv(hidden, block))](
        picked,
        out,
        counts,
        EXPERTS=num_experts,
        TOP=top_k,
        HIDDEN=hidden,
        BLOCK=block,
        BLOCK_E=block_e,
        PDL=pdl,
        num_warps=4,
        launch_pdl=pdl,
    )
    return out


def _num_blocks(num_picks: int, num_experts: int, config: ProductConfig) -> int:
    """At most so many blocks of picks of one expert each."""
    return min(num_picks, num_experts + num_picks // config.m)
