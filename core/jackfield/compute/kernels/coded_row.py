"""One row times a weight of codes on Hopper: what is multiplied there, and how it is cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jackfield.compute.kernels.code_numbers import PAIRS_OF_E4M3, Scaling
from jackfield.compute.kernels.coded_layout import BLOCK, STRIP, DeviceCodes
from jackfield.compute.kernels.coded_row_kernel import coded_row_kernel
from jackfield.compute.kernels.launch import cdiv, power_of_2
from jackfield.compute.kernels.scaled_rows import ScaledRows


@dataclass(frozen=True, slots=True)
class RowConfig:
    """Strips of 16 outputs a program, blocks a step for each warp, warps, steps there at once."""

    strips: int
    unroll: int
    warps: int
    stages: int


_WARPS = 4
_LEAST_BLOCKS = 9
"""A kernel has two steps at least, of two blocks for each warp."""

_SOME_BLOCKS, _MANY_BLOCKS = 8 * _WARPS, 32 * _WARPS
"""More than these are more than 2,048 inputs and more than 8,192."""

_PAIRED_STRIPS, _SOME_STRIPS, _MANY_STRIPS = 200, 264, 1024
"""Two strips a program are a program a processor; with more, a processor has some programs; and
with more, they follow each other there."""


def takes(codes: DeviceCodes) -> bool:
    """Whether ``linear_row`` has a way with a weight: groups of half blocks (of 4 bits) or whole
    ones, and inputs for more than a step."""
    groups = codes.scaling is Scaling.NONE or (codes.bits == 4 and codes.group == BLOCK // 2)
    return groups and codes.num_blocks >= _LEAST_BLOCKS


def row_config(codes: DeviceCodes) -> RowConfig:
    """What did best on an H200 for the layers of Qwen3 8B, within a whole step: there a program
    begins to read early if it fits beside those of the kernel before, and a kernel of one large
    program a processor leaves the same room for the next one everywhere."""
    blocks, strips = codes.num_blocks, codes.num_strips
    unroll = 4 if blocks > 4 * _WARPS else 2
    paired = _PAIRED_STRIPS < strips <= _SOME_STRIPS
    if codes.bits == 8:
        if strips > _MANY_STRIPS and unroll == 4:
            return RowConfig(2, 2, 2 * _WARPS, 2)
        if strips > _SOME_STRIPS and blocks > _SOME_BLOCKS:
            return RowConfig(1, 2, 2 * _WARPS, 2)
        if paired and _SOME_BLOCKS < blocks <= _MANY_BLOCKS:
            return RowConfig(2, 2, 2 * _WARPS, 4)
        return RowConfig(1, unroll, _WARPS, 4)
    if strips > _MANY_STRIPS or blocks <= _SOME_BLOCKS:
        return RowConfig(1, unroll, _WARPS, 2 if strips > _MANY_STRIPS else 4)
    if strips > _SOME_STRIPS or (paired and blocks > _MANY_BLOCKS):
        return RowConfig(2, 4, 2 * _WARPS, 2)
    return RowConfig(1, 4, 2 * _WARPS, 4)


def gated_config(codes: DeviceCodes) -> RowConfig:
    """The same for ``gated_row``."""
    if codes.num_blocks <= 4 * _WARPS:
        return RowConfig(2, 2, _WARPS, 2)
    return RowConfig(2, 2, _WARPS, 4) if codes.bits == 4 else RowConfig(2, 1, 2 * _WARPS, 4)


def linear_row(
    x: Tensor | ScaledRows, codes: DeviceCodes, bias: Tensor | None, config: RowConfig | None = None
) -> Tensor:
    """As ``coded.linear_codes``, for one row and what ``takes`` says yes to."""
    return _product(x, codes, bias, config or row_config(codes))


def takes_gated(codes: DeviceCodes) -> bool:
    """Whether ``gated_row`` has a way with a weight: both halves are whole strips."""
    return takes(codes) and codes.outputs % (2 * STRIP) == 0


def gated_row(
    x: Tensor | ScaledRows, codes: DeviceCodes, bias: Tensor | None, config: RowConfig | None = None
) -> Tensor:
    """SiLU of the first half of what ``linear_row`` gives times the second half, [1, N / 2]."""
    return _product(x, codes, bias, config or gated_config(codes), gated=True)


def add_row(
    x: Tensor,
    codes: DeviceCodes,
    bias: Tensor | None,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
    config: RowConfig | None = None,
) -> ScaledRows:
    """As ``linear_row``, plus ``residual`` [1, N], which keeps the sum; what RMSNorm with
    ``norm_weight`` [N] makes of it, but for the division. bfloat16: unnormalized rows may be more
    than float16 holds."""
    config = config or row_config(codes)
    shape = (cdiv(codes.num_strips, config.strips), 1)
    squares = torch.empty(shape, dtype=torch.float32, device=x.device)
    rows = _product(x, codes, bias, config, adds=(residual, norm_weight, squares))
    return ScaledRows(rows, squares, eps)


def _product(
    x: Tensor | ScaledRows,
    codes: DeviceCodes,
    bias: Tensor | None,
    config: RowConfig,
    *,
    gated: bool = False,
    adds: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    # adds: residual, the norm's weight, squares of the sums.
    row, squares, eps = ScaledRows.parts(x)
    outputs = codes.outputs // 2 if gated else codes.outputs
    out = torch.empty((1, outputs), dtype=row.dtype, device=row.device)
    residual, norm_weight, squares_out = adds or (out, out, out)
    c, num_blocks, inputs = config, codes.num_blocks, row.shape[1]
    steps = cdiv(num_blocks, c.unroll * c.warps)
    programs = cdiv(codes.num_strips, c.strips)
    # Two codes of 8 bits take fewer instructions to float16 than to bfloat16: E4M3 1 and 4.5, E5M2
    # 1.5 and 4.5, integers 2.5 and 3.5. Of 4 bits they take the same.
    through = torch.float16 if codes.bits == 8 else row.dtype
    pairs = codes.kind == "e4m3"
    coded_row_kernel[(programs,)](
        row,
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
        codes.outputs,
        inputs,
        codes.num_strips,
        num_blocks,
        codes.num_groups,
        0 if squares is None else len(squares),
        eps,
        ASM=PAIRS_OF_E4M3 if pairs else codes.asm(through, Scaling.NONE),
        PAIRS=pairs,
        BITS=codes.bits,
        GROUP=codes.group,
        HAS_SHIFTS=codes.shifts is not None,
        HAS_BIAS=bias is not None,
        GATED=gated,
        ADDS=adds is not None,
        MAX_SQUARES=0 if squares is None else power_of_2(len(squares)),
        EVEN=num_blocks == steps * c.unroll * c.warps and inputs == num_blocks * BLOCK,
        STRIPS=c.strips,
        UNROLL=c.unroll,
        STEPS=steps,
        STAGES=min(c.stages, steps),
        W=c.warps,
        num_warps=c.warps,
        launch_pdl=True,
    )
    return out
