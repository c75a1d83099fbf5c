"""Some rows times a weight of codes on Hopper: what is multiplied there, and how it is cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jackfield.compute.kernels.code_numbers import Scaling
from jackfield.compute.kernels.coded import MAX_PARTS, MAX_TILES
from jackfield.compute.kernels.coded_layout import BLOCK, DeviceCodes
from jackfield.compute.kernels.coded_rows_kernel import coded_rows_kernel
from jackfield.compute.kernels.launch import cdiv, power_of_2
from jackfield.compute.kernels.split_inputs import split_workspace

MAX_ROWS = 128


@dataclass(frozen=True, slots=True)
class RowsConfig:
    """Rows of a tile; warps, each with 16 outputs; blocks a step; steps there at once; parts of the
    inputs; whether codes become numbers while others are multiplied, if the steps are even."""

    rows: int
    warps: int
    unroll: int
    stages: int
    split: int = 1
    overlaps: bool = False


def takes(codes: DeviceCodes) -> bool:
    """Whether ``linear_rows`` has a way with a weight: not with parts of blocks in 8 bits."""
    return codes.bits == 4 or codes.scaling is Scaling.NONE


def pays(num_rows: int, codes: DeviceCodes) -> bool:
    """Whether ``linear_rows`` beats ``coded`` and ``coded_wide``."""
    few = 1 if codes.bits == 4 and 0 < codes.group < 2 * BLOCK else 8
    return few < num_rows <= (MAX_ROWS if codes.bits == 4 else MAX_ROWS // 2)


def rows_config(num_rows: int, codes: DeviceCodes) -> RowsConfig:
    """What did best on an H200 for the layers of Qwen3 8B."""
    rows = min(128, max(8, power_of_2(num_rows)))
    many = codes.num_strips > 512
    if rows <= 16:
        return RowsConfig(rows, 4, 4, 3) if many else RowsConfig(rows, 4, 2, 4, 8)
    if rows <= 64:
        return RowsConfig(rows, 8, 2, 4, 1 if many else 8)
    return RowsConfig(rows, 4, 1, 6) if many else RowsConfig(rows, 4, 1, 6, 4, overlaps=True)


def linear_rows(
    x: Tensor, codes: DeviceCodes, bias: Tensor | None, config: RowsConfig | None = None
) -> Tensor:
    """As ``coded.linear_codes``, for more rows and what ``takes`` says yes to."""
    num_rows, inputs = x.shape
    out = torch.empty((num_rows, codes.outputs), dtype=x.dtype, device=x.device)
    c = config or rows_config(num_rows, codes)
    split = c.split if c.split * num_rows * codes.outputs <= MAX_PARTS else 1
    parts, arrivals = split_workspace(x.device, MAX_PARTS, MAX_TILES) if split > 1 else (out, out)
    tiles = cdiv(codes.num_strips, c.warps)
    share = cdiv(cdiv(codes.num_blocks, c.unroll), split)
    coded_rows_kernel[(cdiv(num_rows, c.rows), tiles, split)](
        x,
        codes.words,
        codes.scales,
        codes.scales if codes.shifts is None else codes.shifts,
        codes.row_scales,
        bias if bias is not None else out,
        out,
        parts,
        arrivals,
        num_rows,
        codes.outputs,
        inputs,
        codes.num_strips,
        codes.num_blocks,
        codes.num_groups,
        share,
        ASM=codes.asm(x.dtype, codes.decoding),
        BITS=codes.bits,
        GROUP=codes.group,
        SCALING=codes.decoding,
        HAS_BIAS=bias is not None,
        EVEN=codes.num_blocks % c.unroll == 0 and inputs == codes.num_blocks * BLOCK,
        BLOCK_M=c.rows,
        U=c.unroll,
        STAGES=c.stages,
        SPLIT=split,
        OVERLAPS=c.overlaps and share % 2 == 0 and share * split * c.unroll == codes.num_blocks,
        W=c.warps,
        num_warps=c.warps,
        launch_pdl=True,
    )
    return out
