"""Which token goes through which experts, and the sum of what these gave it.

``route`` chooses and lists the *picks* (a token and one of its experts) of each expert. Kernels
that multiply by experts take a block of one expert's picks; they find the expert from the lists'
lengths in device memory (``find_block``), so that their grid depends on the number of tokens only
and a captured graph serves any choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import cdiv, overlaps, power_of_2, quick


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
def find_block(
    counts, picks, num_tokens, block, EXPERTS: tl.constexpr, BLOCK_E: tl.constexpr, M: tl.constexpr
):
    """The block's expert (EXPERTS behind the last) and its picks, with those that are there."""
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
class Routed:
    """``counts`` int32 [E], the picks of each expert; ``picks`` int32 [E * T], each expert's list;
    ``shares`` float32 [T * top_k], what a pick's output is multiplied by. Pick p is of token p //
    top_k. Whoever has read the lists calls ``add_picks``, which leaves the counts 0."""

    counts: Tensor
    picks: Tensor
    shares: Tensor
    top_k: int


@cache
def _counts(device: torch.device, num_experts: int) -> Tensor:
    # Lengths of the lists, shared by all layers of a device; every call leaves them 0.
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    assert not capturing, "run experts once before capturing it"
    return torch.zeros(num_experts, dtype=torch.int32, device=device)


def route(logits: Tensor, *, top_k: int, renormalize: bool) -> Routed:
    """Of each row of logits [T, E] the ``top_k`` largest; shares are their softmax over all
    (``renormalize``: over the chosen)."""
    num_tokens, num_experts = logits.shape
    counts = _counts(logits.device, num_experts)
    picks = torch.empty(num_experts * num_tokens, dtype=torch.int32, device=logits.device)
    shares = torch.empty(num_tokens * top_k, dtype=torch.float32, device=logits.device)
    pdl = overlaps(logits)
    _route_kernel[(num_tokens,)](
        logits,
        shares,
        counts,
        picks,
        num_tokens,
        logits.stride(0),
        EXPERTS=num_experts,
        TOP=top_k,
        BLOCK_E=power_of_2(num_experts),
        BLOCK_TOP=power_of_2(top_k),
        RENORMALIZE=renormalize,
        PDL=pdl,
        num_warps=1,
        launch_pdl=pdl,
    )
    return Routed(counts, picks, shares, top_k)


def add_picks(picked: Tensor, routed: Routed, out: Tensor) -> None:
    """The sum of each token's picks, picked [T * top_k, H], in their order, to out [T, H]."""
    num_tokens, hidden = out.shape
    num_experts = len(routed.counts)
    block, pdl = min(1024, power_of_2(hidden)), overlaps(out)
    _add_picks_kernel[(num_tokens, cdiv(hidden, block))](
        picked,
        out,
        routed.counts,
        EXPERTS=num_experts,
        TOP=routed.top_k,
        HIDDEN=hidden,
        BLOCK=block,
        BLOCK_E=power_of_2(num_experts),
        PDL=pdl,
        num_warps=4,
        launch_pdl=pdl,
    )


def num_blocks(num_picks: int, num_experts: int, size: int) -> int:
    """At most so many blocks of up to ``size`` picks of one expert each."""
    return min(num_picks, num_experts + num_picks // size)
