"""Some rows times a weight of codes on Hopper: what is multiplied there, and how it is cut."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jackfield.compute.kernels.code_numbers import Scaling
from jackfield.compute.kernels.coded import MAX_PARTS, MAX_TILES
from jackfield.compute.kernels.coded_layout import BLOCK, STRIP, DeviceCodes
from jackfield.compute.kernels.coded_rows_kernel import coded_rows_kernel
from jackfield.compute.kernels.launch import cdiv, power_of_2
from jackfield.compute.kernels.scaled_rows import ScaledRows
from jackfield.compute.kernels.split_inputs import split_workspace


@dataclass(frozen=True, slots=True)
class RowsConfig:
    """Rows of a tile; groups of warps, each with 64 outputs; blocks of 64 inputs a step; steps of
    codes and of rows there at once; parts of the inputs; whether a group makes numbers while its
    own are multiplied; programs that a processor has registers for."""

    rows: int
    groups: int
    unroll: int
    stages: int
    depth: int = 3
    split: int = 1
    overlaps: bool = True
    programs: int = 1


MAX_ROWS = 256
_PROCESSORS = 132
_SOME_STRIPS, _MANY_STRIPS, _MANY_BLOCKS = 264, 512, 128


def takes(codes: DeviceCodes) -> bool:
    """Whether there is a way with a weight: not with parts of blocks in 8 bits; by 4 bits rows are
    moved in pairs of inputs."""
    return codes.inputs % 2 == 0 if codes.bits == 4 else codes.scaling is Scaling.NONE


def takes_gated(codes: DeviceCodes) -> bool:
    """Whether ``gated_rows`` has a way with a weight: both halves are pairs of strips."""
    return takes(codes) and codes.outputs % (4 * STRIP) == 0


def pays(num_rows: int, codes: DeviceCodes) -> bool:
    """Whether that is faster than ``coded`` and ``coded_wide``, and cuBLAS for more rows."""
    return takes(codes) and 0 < num_rows <= MAX_ROWS


def rows_config(num_rows: int, codes: DeviceCodes) -> RowsConfig:
    """What did best on an H200 for the layers of Qwen3 8B, within a whole step: about as many
    programs as there are processors."""
    strips = codes.num_strips
    if num_rows <= 32:
        rows = 8 if num_rows <= 8 else 32
        wide = strips > _MANY_STRIPS or (rows == 8 and strips > _SOME_STRIPS)
        return _split(RowsConfig(rows, 3 if wide else 2, 2, 24 // codes.bits), num_rows, codes)
    rows = 64 if num_rows <= 64 else 128
    stages = 6 if codes.bits == 4 else 4
    if strips > _MANY_STRIPS:
        return RowsConfig(rows, 3, 1, stages, 3, overlaps=False)
    if codes.num_blocks > _MANY_BLOCKS:
        return _split(RowsConfig(rows, 2, 1, stages, 4), num_rows, codes)
    return _split(RowsConfig(64, 3, 1, stages, 4), num_rows, codes)


def _split(c: RowsConfig, num_rows: int, codes: DeviceCodes) -> RowsConfig:
    tiles = cdiv(codes.num_strips, 4 * c.groups) * cdiv(num_rows, c.rows)
    return replace(c, split=max(1, min(8, _PROCESSORS // tiles)))


def _registers(c: RowsConfig, bits: int) -> tuple[int, int, int]:
    """Of a thread at first, one that multiplies, and one that brings rows."""
    each = min(255, 65536 // (128 * (c.groups + 1) * c.programs)) // 8 * 8
    # Two steps of rows are on their way; by 8 bits each number has a register of its own at last.
    loader = min(each, (c.rows * c.unroll // 2 + 47) // 8 * 8) if bits == 4 else each
    return each, (each + (each - loader) // c.groups) // 8 * 8, loader


def _shares(codes: DeviceCodes, c: RowsConfig, tiles: int) -> tuple[int, int]:
    """Steps of a part, and how many parts there are: none is empty, and there is room for all."""
    steps = cdiv(codes.num_blocks, c.unroll)
    fits = c.split * tiles * c.groups * c.rows * 64 <= MAX_PARTS and tiles * c.groups <= MAX_TILES
    share = cdiv(steps, c.split) if fits else steps
    return share, cdiv(steps, share)


def linear_rows(
    x: Tensor | ScaledRows,
    codes: DeviceCodes,
    bias: Tensor | None,
    config: RowsConfig | None = None,
) -> Tensor:
    """As ``coded.linear_codes``, for more rows and what ``takes`` says yes to."""
    return _product(x, codes, bias, config or rows_config(len(x), codes))


def gated_rows(
    x: Tensor | ScaledRows,
    codes: DeviceCodes,
    bias: Tensor | None,
    config: RowsConfig | None = None,
) -> Tensor:
    """SiLU of the first half of what ``linear_rows`` gives times the second half, [M, N / 2]."""
    return _product(x, codes, bias, config or rows_config(len(x), codes), gated=True)


def add_rows(
    x: Tensor,
    codes: DeviceCodes,
    bias: Tensor | None,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
    config: RowsConfig | None = None,
) -> ScaledRows:
    """As ``linear_rows``, plus ``residual`` [M, N], which keeps the sum; what RMSNorm with
    ``norm_weight`` [N] makes of it, but for the division. bfloat16: unnormalized rows may be more
    than float16 holds."""
    config = config or rows_config(len(x), codes)
    shape = (cdiv(codes.num_strips, 4), len(x))
    squares = torch.empty(shape, dtype=torch.float32, device=x.device)
    rows = _product(x, codes, bias, config, adds=(residual, norm_weight, squares))
    return ScaledRows(rows, squares, eps)


def _product(
    x: Tensor | ScaledRows,
    codes: DeviceCodes,
    bias: Tensor | None,
    config: RowsConfig,
    *,
    gated: bool = False,
    adds: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    # adds: residual, the norm's weight, squares of the sums.
    rows, squares, eps = ScaledRows.parts(x)
    (num_rows, inputs), c = rows.shape, config
    outputs = codes.outputs // 2 if gated else codes.outputs
    out = torch.empty((num_rows, outputs), dtype=rows.dtype, device=rows.device)
    residual, norm_weight, squares_out = adds or (out, out, out)
    across, tiles = cdiv(num_rows, c.rows), cdiv(codes.num_strips, 4 * c.groups)
    share, split = _shares(codes, c, across * tiles)
    parts, arrivals = (
        split_workspace(rows.device, MAX_PARTS, MAX_TILES) if split > 1 else (out, out)
    )
    each, registers, loader = _registers(c, codes.bits)
    coded_rows_kernel[(across, tiles, split)](
        rows,
        codes.words,
        codes.scales,
        codes.shifts_or_scales,
        codes.row_scales,
        bias if bias is not None else out,
        squares if squares is not None else out,
        residual,
        norm_weight,
        out,
        squares_out,
        parts,
        arrivals,
        num_rows,
        codes.outputs,
        inputs,
        codes.num_strips,
        codes.num_blocks,
        codes.num_groups,
        0 if squares is None else len(squares),
        share,
        eps,
        ASM=codes.asm(rows.dtype, codes.decoding),
        BITS=codes.bits,
        GROUP=codes.group,
        SCALING=codes.decoding,
        HAS_BIAS=bias is not None,
        GATED=gated,
        ADDS=adds is not None,
        MAX_SQUARES=0 if squares is None else max(16, power_of_2(len(squares))),
        EVEN=codes.num_blocks % c.unroll == 0 and inputs == codes.num_blocks * BLOCK,
        BLOCK_M=c.rows,
        U=c.unroll,
        STAGES=c.stages,
        DEPTH=c.depth,
        SPLIT=split,
        GROUPS=c.groups,
        OVERLAPS=c.overlaps,
        REGISTERS=registers,
        LOADER=loader,
        num_warps=4,
        maxnreg=each,
        launch_pdl=True,
    )
    return out
