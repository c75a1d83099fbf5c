"""A weight of codes to plain numbers, for products of many rows: these are bound by arithmetic, and
cuBLAS does them best."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.code_numbers import Scaling, numbers_of
from jackfield.compute.kernels.coded_layout import DeviceCodes
from jackfield.compute.kernels.launch import cdiv, overlaps, quick

_WARPS = 4
_BLOCKS = 2


@quick
@triton.jit
def _decode_codes_kernel(
    words,
    scales,
    shifts,
    row_scales,
    table,
    out,
    N,
    K,
    num_blocks,
    num_groups,
    ASM: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_SHIFTS: tl.constexpr,
    BLOCKS: tl.constexpr,
    PDL: tl.constexpr,
):
    # One strip of 16 outputs and BLOCKS blocks of inputs.
    WIDTH: tl.constexpr = BLOCKS * 64
    strip = tl.program_id(0)
    first = tl.program_id(1) * BLOCKS
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    like = tl.zeros((1,), tl.bfloat16 if out.dtype.element_ty == tl.bfloat16 else tl.float16)
    if BITS == 4:
        block = first + tl.arange(0, BLOCKS)
        at = words + (strip.to(tl.int64) * num_blocks + block)[:, None] * 256 + tl.arange(0, 256)
        codes = tl.load(at, mask=(block < num_blocks)[:, None], other=0).reshape(BLOCKS, 128, 2)
        n = numbers_of(codes, (), (), like, table, ASM, BITS, 0)
        # [blocks, 8, 4, 2 (k + 2), 2 (row + 8), 2 (k + 1), 2 (k + 4)], and 2 (k + 32).
        f = tl.join(tl.join(n[0], n[1]), tl.join(n[2], n[3]))
        f = f.reshape(BLOCKS, 8, 4, 2, 2, 2, 2, 2).permute(4, 1, 0, 7, 2, 6, 3, 5)
    else:
        word = tl.program_id(1) * (BLOCKS * 32) + tl.arange(0, BLOCKS * 32)
        rows = (strip * 16 + tl.arange(0, 16)).to(tl.int64)[:, None] * (num_blocks * 32)
        codes = tl.load(words + rows + word, mask=word < num_blocks * 32, other=0)
        codes = codes.reshape(16, BLOCKS * 16, 2)
        n = numbers_of(codes, (), (), like, table, ASM, BITS, 0)
        f = tl.join(n[0], n[1])
    numbers = f.reshape(16, WIDTH).to(tl.float32)
    row = tl.arange(0, 16)
    output = strip * 16 + row
    k = first * 64 + tl.arange(0, WIDTH)
    if GROUP > 0:
        group = tl.minimum(k // GROUP, num_groups - 1)
        place = (strip * num_groups + group)[None, :] * 16 + (row % 8 * 2 + row // 8)[:, None]
        numbers *= tl.load(scales + place).to(tl.float32)
        if HAS_SHIFTS:
            numbers += tl.load(shifts + place).to(tl.float32)
    numbers *= tl.load(row_scales + output)[:, None]
    # What is written to is in use until the launch before this one has ended.
    if PDL:
        tl.extra.cuda.gdc_wait()
    there = out + output.to(tl.int64)[:, None] * K + k[None, :]
    mask = (output < N)[:, None] & (k < K)[None, :]
    tl.store(there, numbers.to(out.dtype.element_ty), mask=mask)


def decoded(codes: DeviceCodes, dtype: torch.dtype) -> Tensor:
    """The numbers [N, K], rounded once; tables for other dtypes than bfloat16 are in float16."""
    out = torch.empty((codes.outputs, codes.inputs), dtype=dtype, device=codes.words.device)
    decode_codes(codes, out)
    return out


def decode_codes(codes: DeviceCodes, out: Tensor) -> None:
    """``decoded`` to a tensor that is there."""
    num_strips, num_blocks = codes.num_strips, codes.num_blocks
    through = torch.bfloat16 if out.dtype is torch.bfloat16 else torch.float16
    pdl = overlaps(out)
    _decode_codes_kernel[(num_strips, cdiv(num_blocks, _BLOCKS))](
        codes.words,
        codes.scales,
        codes.shifts_or_scales,
        codes.row_scales,
        codes.table,
        out,
        codes.outputs,
        codes.inputs,
        num_blocks,
        1 if codes.group == 0 else codes.scales.shape[1],
        ASM="" if triton.knobs.runtime.interpret else codes.asm(through, Scaling.NONE),
        BITS=codes.bits,
        GROUP=codes.group,
        HAS_SHIFTS=codes.shifts is not None,
        BLOCKS=_BLOCKS,
        PDL=pdl,
        num_warps=1,
        launch_pdl=pdl,
    )
