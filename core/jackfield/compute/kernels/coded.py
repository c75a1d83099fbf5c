"""A weight of 4-bit or 8-bit codes times up to 64 rows: read once, as small as it is stored.

The tensor cores take a weight as fragments: lane l of 32 has, of 16 rows and 16 inputs, rows l / 4
and l / 4 + 8. The codes are stored in the order of these fragments (``coded_layout``), so that a
lane loads 16 bytes, turns them into numbers in its registers, and multiplies; nothing goes through
shared memory. Rows of x are loaded as fragments too. A warp has STRIPS strips of 16 outputs; WN
warps of a program share out its outputs, WK and SPLIT programs the inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.coded_layout import DeviceCodes
from jackfield.compute.kernels.coded_tiles import multiply_codes
from jackfield.compute.kernels.launch import cdiv, overlaps, quick
from jackfield.compute.kernels.split_inputs import split_workspace, sum_of_parts


@quick
@triton.jit(do_not_specialize=["num_rows", "steps"])
def _coded_kernel(
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
    steps,
    N,
    K,
    num_strips,
    num_blocks,
    num_groups,
    ASM: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SCALING: tl.constexpr,
    HAS_SHIFTS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    EVEN: tl.constexpr,
    STRIPS: tl.constexpr,
    UNROLL: tl.constexpr,
    DEPTH: tl.constexpr,
    WN: tl.constexpr,
    WK: tl.constexpr,
    EIGHTS: tl.constexpr,
    SPLIT: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    tile = tl.program_id(0)
    part = tl.program_id(1)
    warp = tl.arange(0, WN * WK)
    strip = (tile * WN + warp % WN)[:, None] * STRIPS + tl.arange(0, STRIPS)[None, :]
    strip = tl.minimum(strip, num_strips - 1)
    eight = tl.program_id(2) * EIGHTS + tl.arange(0, EIGHTS)
    row = eight[None, :] * 8 + tl.arange(0, 8)[:, None]
    acc = multiply_codes(
        x,
        row,
        row < num_rows,
        words,
        scales,
        shifts,
        table,
        strip,
        (part * WK + warp // WN) * steps * UNROLL,
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
        PDL,
    )
    y = tl.sum(acc.reshape(WK, WN, STRIPS * 16, EIGHTS * 8), 0)
    y = y.reshape(WN * STRIPS * 16, EIGHTS * 8)
    n = tile * (WN * STRIPS * 16) + tl.arange(0, WN * STRIPS * 16)[:, None]
    m = tl.program_id(2) * (EIGHTS * 8) + tl.arange(0, EIGHTS * 8)[None, :]
    mask = (n < N) & (m < num_rows)
    last = True
    if SPLIT > 1:
        arrival = arrivals + tile * tl.num_programs(2) + tl.program_id(2)
        y, last = sum_of_parts(y, parts, arrival, part, m, n, num_rows, N, mask, SPLIT)
    if last:
        y *= tl.load(row_scales + n, mask=n < N, other=0.0)
        if HAS_BIAS:
            y += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)
        tl.store(out + m.to(tl.int64) * N + n, y.to(out.dtype.element_ty), mask=mask)


@dataclass(frozen=True, slots=True)
class CodedConfig:
    """Strips a warp, blocks a step; warps of a program beside each other along the outputs (``wn``)
    and the inputs (``wk``), programs along the inputs; tiles of so many times 8 rows of x."""

    strips: int
    unroll: int
    wn: int
    wk: int
    split: int
    eights: int
    depth: int = 1


MAX_ROWS = 16
DTYPES = (torch.float16, torch.bfloat16)
MAX_PARTS, MAX_TILES = 4 << 20, 1 << 14
"""Where the inputs are split: numbers of all parts, tiles of the result."""


def coded_config(num_rows: int, codes: DeviceCodes) -> CodedConfig:
    """What did well on an H200 for the layers of Qwen3 8B, within what the groups allow."""
    eights = 1 if num_rows <= 8 else 2
    many = codes.outputs >= 16384
    for unroll in (4, 2, 1) if codes.bits == 8 else (2, 1):
        strips = 2 if eights == 2 or (many and codes.bits == 4) else 1
        wn, wk = (2, 4) if eights == 2 or (many and codes.bits == 4) else (1, 4)
        if codes.bits == 4 and not many and eights == 1:
            wk = 8
        config = CodedConfig(strips, min(unroll, 4 // strips), wn, wk, 1, eights)
        if fits(config, codes):
            break
    return config


def fits(config: CodedConfig, codes: DeviceCodes) -> bool:
    """Whether a step of the configuration stays within a group."""
    late = codes.group and not codes.scaling
    return not late or codes.group % (64 * config.unroll) == 0


def linear_codes(
    x: Tensor, codes: DeviceCodes, bias: Tensor | None, config: CodedConfig | None = None
) -> Tensor:
    """x [M, K], contiguous, float16 or bfloat16, times the weight [N, K] transposed, plus bias [N]
    -> [M, N].

    The weight is read before the launch before this one has ended: nothing that is still running
    may write it.
    """
    num_rows, inputs = x.shape
    out = torch.empty((num_rows, codes.outputs), dtype=x.dtype, device=x.device)
    c = config or coded_config(num_rows, codes)
    num_strips, num_blocks = codes.num_strips, codes.num_blocks
    shares = c.wk * c.split * c.unroll
    steps = cdiv(num_blocks, shares)
    parts, arrivals = split_workspace(x.device, MAX_PARTS, MAX_TILES) if c.split > 1 else (out, out)
    pdl = overlaps(x)
    grid = (cdiv(num_strips, c.wn * c.strips), c.split, cdiv(num_rows, 8 * c.eights))
    _coded_kernel[grid](
        x,
        codes.words,
        codes.scales,
        codes.shifts_or_scales,
        codes.row_scales,
        bias if bias is not None else out,
        codes.table,
        out,
        parts,
        arrivals,
        num_rows,
        steps,
        codes.outputs,
        inputs,
        num_strips,
        num_blocks,
        codes.num_groups,
        ASM="" if triton.knobs.runtime.interpret else codes.asm(x.dtype, codes.scaling),
        BITS=codes.bits,
        GROUP=codes.group,
        SCALING=codes.scaling,
        HAS_SHIFTS=codes.shifts is not None,
        HAS_BIAS=bias is not None,
        EVEN=num_blocks == shares * steps and inputs == num_blocks * 64,
        STRIPS=c.strips,
        UNROLL=c.unroll,
        DEPTH=c.depth,
        WN=c.wn,
        WK=c.wk,
        EIGHTS=c.eights,
        SPLIT=c.split,
        PDL=pdl,
        num_warps=c.wn * c.wk,
        num_stages=1,
        launch_pdl=pdl,
    )
    return out
