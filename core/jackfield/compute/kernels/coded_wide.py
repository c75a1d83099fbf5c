"""A coded weight times some dozens to hundreds of rows: bound by both reading and arithmetic.

A program turns a tile of codes into numbers in registers, and the tensor cores of whole warp groups
multiply them with a tile of rows in shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.code_numbers import numbers_of
from jackfield.compute.kernels.coded import MAX_PARTS, MAX_TILES
from jackfield.compute.kernels.coded_layout import BLOCK, DeviceCodes
from jackfield.compute.kernels.launch import cdiv, overlaps, quick
from jackfield.compute.kernels.split_inputs import split_workspace, sum_of_parts


@triton.jit
def _by_word(values, like, BITS: tl.constexpr, STRIPS: tl.constexpr):
    # [strips * 16 outputs, 4], a value for each 16 inputs, to what multiplies numbers where these
    # are decoded: the first half of a block and (of 4 bits) the second.
    if BITS == 4:
        f = values.reshape(STRIPS, 2, 8, 2, 2).permute(0, 2, 4, 1, 3)
        f = f.reshape(STRIPS, 8, 2, 1, 1, 2, 1, 2).broadcast_to(STRIPS, 8, 2, 2, 2, 2, 2, 2)
        first, second = f.reshape(STRIPS, 128, 2, 2).split()
        return first.to(like.dtype), second.to(like.dtype)
    else:
        f = values.reshape(STRIPS * 16, 4, 1).broadcast_to(STRIPS * 16, 4, 8)
        f = f.reshape(STRIPS * 16, 16, 2).to(like.dtype)
        return f, f


@triton.jit
def _scales_of(scales, output, k, num_groups, GROUP: tl.constexpr):
    # [outputs, 4]: of a block's 16s of inputs.
    group = tl.minimum((k + tl.arange(0, 4) * 16) // GROUP, num_groups - 1)
    row = output % 16
    own = (output // 16 * num_groups)[:, None] + group[None, :]
    return tl.load(scales + own * 16 + (row % 8 * 2 + row // 8)[:, None])


@triton.jit
def _tile(
    words,
    scales,
    shifts,
    strip,
    output,
    block,
    num_blocks,
    num_groups,
    like,
    table,
    ASM: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SCALING: tl.constexpr,
    STRIPS: tl.constexpr,
):
    # Numbers [STRIPS * 16, 64] of one block of inputs.
    early = (like, like)
    early_shifts = (like, like)
    if SCALING > 0:
        early = _by_word(
            _scales_of(scales, output, block * 64, num_groups, GROUP), like, BITS, STRIPS
        )
    if SCALING == 2:
        early_shifts = _by_word(
            _scales_of(shifts, output, block * 64, num_groups, GROUP), like, BITS, STRIPS
        )
    if BITS == 4:
        at = (strip.to(tl.int64) * num_blocks + block)[:, None] * 256 + tl.arange(0, 256)
        codes = tl.load(words + at).reshape(STRIPS, 128, 2)
        n = numbers_of(codes, early, early_shifts, like, table, ASM, BITS, SCALING)
        # [strips, 8, 4, 2 (k + 2), 2 (row + 8), 2 (k + 1), 2 (k + 32), 2 (k + 4)].
        f = tl.join(tl.join(n[0], n[2]), tl.join(n[1], n[3]))
        f = f.reshape(STRIPS, 8, 4, 2, 2, 2, 2, 2).permute(0, 4, 1, 6, 2, 7, 3, 5)
    else:
        at = (output.to(tl.int64) * num_blocks + block)[:, None] * 32 + tl.arange(0, 32)
        codes = tl.load(words + at).reshape(STRIPS * 16, 16, 2)
        n = numbers_of(codes, early, early_shifts, like, table, ASM, BITS, SCALING)
        f = tl.join(n[0], n[1])
    return f.reshape(STRIPS * 16, 64)


@quick
@triton.jit(do_not_specialize=["num_rows"])
def _coded_wide_kernel(
    x,
    words,
    scales,
    shifts,
    row_scales,
    bias,
    table,
    out,
    parts,
    arrivals,
    num_rows,
    N,
    K,
    num_strips,
    num_blocks,
    num_groups,
    ASM: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SCALING: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    EVEN: tl.constexpr,
    STRIPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    SPLIT: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    OUTPUTS: tl.constexpr = STRIPS * 16
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    strip = tl.minimum(tl.program_id(1) * STRIPS + tl.arange(0, STRIPS), num_strips - 1)
    output = tl.minimum(n, num_strips * 16 - 1)
    ks = tl.arange(0, 64)
    like = tl.zeros((1,), x.dtype.element_ty)
    rows = x + m.to(tl.int64)[:, None] * K + ks[None, :]
    live = (m < num_rows)[:, None]
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    acc = tl.zeros((OUTPUTS, BLOCK_M), tl.float32)
    share = tl.cdiv(num_blocks, SPLIT)
    part = tl.program_id(2)
    end = tl.minimum((part + 1) * share, num_blocks)
    for block in tl.range(part * share, end, num_stages=STAGES):
        if EVEN:
            some = tl.load(rows + block * 64, mask=live, other=0.0)
        else:
            some = tl.load(rows + block * 64, mask=live & (block * 64 + ks < K), other=0.0)
        w = _tile(
            words,
            scales,
            shifts,
            strip,
            output,
            block,
            num_blocks,
            num_groups,
            like,
            table,
            ASM,
            BITS,
            GROUP,
            SCALING,
            STRIPS,
        )
        acc = tl.dot(w, some.T, acc)
    mask = (n < N)[:, None] & (m < num_rows)[None, :]
    last = True
    if SPLIT > 1:
        arrival = arrivals + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        acc, last = sum_of_parts(
            acc, parts, arrival, part, m[None, :], n[:, None], num_rows, N, mask, SPLIT
        )
    if last:
        acc *= tl.load(row_scales + output)[:, None]
        if HAS_BIAS:
            acc += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[:, None]
        there = out + m.to(tl.int64)[None, :] * N + n[:, None]
        tl.store(there, acc.to(out.dtype.element_ty), mask=mask)


MAX_ROWS = 512
"""With more, what decoding the weight for cuBLAS costs is small beside the product."""


@dataclass(frozen=True, slots=True)
class WideConfig:
    """Strips of 16 outputs, rows of a tile, pipeline stages, warps; programs along the inputs."""

    strips: int
    rows: int
    stages: int
    warps: int
    split: int = 1


def wide_config(num_rows: int, codes: DeviceCodes) -> WideConfig:
    """As many programs as an H200 has processors, or parts of them. Not timed yet."""
    rows = 32 if num_rows <= 32 else 64 if num_rows <= 64 else 128
    tiles = cdiv(codes.num_strips, 8) * cdiv(num_rows, rows)
    split = 1 if tiles > 66 else 2 if tiles > 33 else 4
    if split * num_rows * codes.outputs > MAX_PARTS:
        split = 1
    return WideConfig(8, rows, 3, 8, split)


def linear_wide(
    x: Tensor, codes: DeviceCodes, bias: Tensor | None, config: WideConfig | None = None
) -> Tensor:
    """As ``coded.linear_codes``, for more rows."""
    num_rows, inputs = x.shape
    out = torch.empty((num_rows, codes.outputs), dtype=x.dtype, device=x.device)
    c = config or wide_config(num_rows, codes)
    pdl = overlaps(x)
    parts, arrivals = split_workspace(x.device, MAX_PARTS, MAX_TILES) if c.split > 1 else (out, out)
    grid = (cdiv(num_rows, c.rows), cdiv(codes.num_strips, c.strips), c.split)
    _coded_wide_kernel[grid](
        x,
        codes.words,
        codes.scales,
        codes.scales if codes.shifts is None else codes.shifts,
        codes.row_scales,
        bias if bias is not None else out,
        codes.table,
        out,
        parts,
        arrivals,
        num_rows,
        codes.outputs,
        inputs,
        codes.num_strips,
        codes.num_blocks,
        codes.num_groups,
        ASM="" if triton.knobs.runtime.interpret else codes.asm(x.dtype, codes.decoding),
        BITS=codes.bits,
        GROUP=codes.group,
        SCALING=codes.decoding,
        HAS_BIAS=bias is not None,
        EVEN=inputs == codes.num_blocks * BLOCK,
        STRIPS=c.strips,
        BLOCK_M=c.rows,
        SPLIT=c.split,
        STAGES=c.stages,
        PDL=pdl,
        num_warps=c.warps,
        launch_pdl=pdl,
    )
    return out
