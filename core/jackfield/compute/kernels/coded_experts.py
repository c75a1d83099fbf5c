"""A mixture of experts whose weights are codes: as ``experts``, with the products of ``coded``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.activation import gated
from jackfield.compute.kernels.coded import CodedConfig
from jackfield.compute.kernels.coded_layout import STRIP, DeviceCodes
from jackfield.compute.kernels.coded_tiles import multiply_codes
from jackfield.compute.kernels.expert_routing import (
    Routed,
    add_picks,
    find_block,
    num_blocks,
    route,
)
from jackfield.compute.kernels.launch import cdiv, overlaps, power_of_2, quick


@quick
@triton.jit(do_not_specialize=["num_tokens", "steps"])
def _coded_expert_kernel(
    x,
    words,
    scales,
    shifts,
    row_scales,
    table,
    bias,
    counts,
    picks,
    shares,
    out,
    num_tokens,
    steps,
    N,
    K,
    num_strips,
    num_blocks,
    num_groups,
    EXPERTS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    TOP: tl.constexpr,
    ASM: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SCALING: tl.constexpr,
    HAS_SHIFTS: tl.constexpr,
    GATED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ALPHA: tl.constexpr,
    LIMIT: tl.constexpr,
    EVEN: tl.constexpr,
    STRIPS: tl.constexpr,
    UNROLL: tl.constexpr,
    DEPTH: tl.constexpr,
    WN: tl.constexpr,
    WK: tl.constexpr,
    EIGHTS: tl.constexpr,
    PDL: tl.constexpr,
):
    # out[pick], of N outputs in num_strips strips. GATED: silu(gate . x) * (up . x) of the token's
    # row, gate and up of an expert behind each other; else share * (down . x) of the pick's row.
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    OWN: tl.constexpr = STRIPS // 2 if GATED else STRIPS
    M: tl.constexpr = EIGHTS * 8
    tiles = tl.cdiv(num_strips, WN * OWN)
    expert, mine, live = find_block(
        counts, picks, num_tokens, tl.program_id(0) // tiles, EXPERTS, BLOCK_E, M
    )
    if expert >= EXPERTS:
        return
    tile = tl.program_id(0) % tiles
    warp = tl.arange(0, WN * WK)
    strip = tl.arange(0, STRIPS)
    strip = (tile * WN + warp % WN)[:, None] * OWN + (strip % OWN)[None, :]
    strip = tl.minimum(strip, num_strips - 1)
    first_strip = expert * num_strips
    if GATED:
        first_strip *= 2
        strip += (tl.arange(0, STRIPS) // OWN * num_strips)[None, :]
    rows = mine // TOP if GATED else mine
    acc = multiply_codes(
        x,
        rows.reshape(EIGHTS, 8).trans(),
        live.reshape(EIGHTS, 8).trans(),
        words,
        scales,
        shifts,
        table,
        first_strip + strip,
        warp // WN * steps * UNROLL,
        steps,
        K,
        num_blocks,
        num_groups,
        ASM,
        BITS,
        GROUP,
        SCALING,
        HAS_SHIFTS,
        EVEN,
        UNROLL,
        DEPTH,
        False,
    )
    y = tl.sum(acc.reshape(WK, WN, STRIPS * 16, M), 0)
    n = tile * (WN * OWN * 16) + tl.arange(0, WN * OWN * 16)[:, None]
    row_scales += first_strip * 16
    bias += first_strip * 16
    if GATED:
        halves = y.reshape(WN, 2, OWN * 16, M).permute(0, 2, 3, 1)
        y, up = halves.reshape(WN * OWN * 16, M, 2).split()
        y *= tl.load(row_scales + n, mask=n < N, other=0.0)
        up *= tl.load(row_scales + num_strips * 16 + n, mask=n < N, other=0.0)
        if HAS_BIAS:
            y += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)
            up += tl.load(bias + num_strips * 16 + n, mask=n < N, other=0.0).to(tl.float32)
        y = gated(y, up, ALPHA, LIMIT)
    else:
        y = y.reshape(WN * OWN * 16, M)
        y *= tl.load(row_scales + n, mask=n < N, other=0.0)
        if HAS_BIAS:
            y += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)
        y *= tl.load(shares + mine, mask=live, other=0.0)[None, :]
    place = mine.to(tl.int64)[None, :] * N + n
    tl.store(out + place, y.to(out.dtype.element_ty), mask=live[None, :] & (n < N))


@dataclass(frozen=True, slots=True)
class CodedExpertsConfig:
    """How the two products are cut; none is split over programs."""

    gate_up: CodedConfig
    down: CodedConfig


def coded_experts_config(num_picks: int, num_experts: int) -> CodedExpertsConfig:
    """By the mean number of picks an expert has."""
    mean = num_picks / num_experts
    eights = 1 if mean <= 8 else 2 if mean <= 16 else 4 if mean <= 32 else 8
    if eights <= 2:
        config = CodedConfig(2, 1, 1, 4, 1, eights)
    else:
        config = CodedConfig(2, 1, 4, 1, 1, eights)
    return CodedExpertsConfig(config, config)


def coded_experts(
    x: Tensor,
    logits: Tensor,
    gate_up: DeviceCodes,
    down: DeviceCodes,
    *,
    top_k: int,
    renormalize: bool,
    biases: tuple[Tensor, Tensor | None] | None = None,
    clamp: tuple[float, float] | None = None,
    config: CodedExpertsConfig | None = None,
) -> Tensor:
    """As ``experts.experts``: ``gate_up`` [E * 2I, H], gate and up of an expert behind each other,
    ``down`` [E * H, I], both I and H whole strips; x contiguous, float16 or bfloat16."""
    out = torch.empty_like(x)
    num_tokens, num_experts = logits.shape
    if not num_tokens:
        return out
    chosen = config or coded_experts_config(num_tokens * top_k, num_experts)
    routed = route(logits, top_k=top_k, renormalize=renormalize)
    inner = gate_up.outputs // num_experts // 2
    activated = torch.empty((num_tokens * top_k, inner), dtype=x.dtype, device=x.device)
    of_gate_up, of_down = biases or (None, None)
    first = _Product(gate_up, of_gate_up, chosen.gate_up, clamp or (1.0, 0.0))
    _multiply(x, first, routed, activated)
    picked = torch.empty((num_tokens * top_k, x.shape[1]), dtype=x.dtype, device=x.device)
    _multiply(activated, _Product(down, of_down, chosen.down), routed, picked)
    add_picks(picked, routed, out)
    return out


@dataclass(frozen=True, slots=True)
class _Product:
    codes: DeviceCodes
    bias: Tensor | None
    config: CodedConfig
    gate: tuple[float, float] | None = None
    """alpha and limit of the first product's gate; the second has none."""


def _multiply(x: Tensor, product: _Product, routed: Routed, out: Tensor) -> None:
    codes, c, gate = product.codes, product.config, product.gate
    num_picks, outputs = out.shape
    num_experts = len(routed.counts)
    num_strips = outputs // STRIP
    own = c.strips if gate is None else c.strips // 2
    tiles = cdiv(num_strips, c.wn * own)
    shares = c.wk * c.unroll
    steps = cdiv(codes.num_blocks, shares)
    pdl = overlaps(x)
    _coded_expert_kernel[(num_blocks(num_picks, num_experts, 8 * c.eights) * tiles,)](
        x,
        codes.words,
        codes.scales,
        codes.shifts_or_scales,
        codes.row_scales,
        codes.table,
        codes.row_scales if product.bias is None else product.bias,
        routed.counts,
        routed.picks,
        routed.shares,
        out,
        num_picks // routed.top_k,
        steps,
        outputs,
        codes.inputs,
        num_strips,
        codes.num_blocks,
        codes.num_groups,
        EXPERTS=num_experts,
        BLOCK_E=power_of_2(num_experts),
        TOP=routed.top_k,
        ASM="" if triton.knobs.runtime.interpret else codes.asm(x.dtype, codes.scaling),
        BITS=codes.bits,
        GROUP=codes.group,
        SCALING=codes.scaling,
        HAS_SHIFTS=codes.shifts is not None,
        GATED=gate is not None,
        HAS_BIAS=product.bias is not None,
        ALPHA=1.0 if gate is None else gate[0],
        LIMIT=0.0 if gate is None else gate[1],
        EVEN=codes.num_blocks == shares * steps and codes.inputs == codes.num_blocks * 64,
        STRIPS=c.strips,
        UNROLL=c.unroll,
        DEPTH=c.depth,
        WN=c.wn,
        WK=c.wk,
        EIGHTS=c.eights,
        PDL=pdl,
        num_warps=c.wn * c.wk,
        num_stages=1,
        launch_pdl=pdl,
    )
