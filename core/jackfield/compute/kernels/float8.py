"""Products in E4M3: rows rounded with a scale each, tensor cores of 8 bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import ScalingType

from jackfield.compute.kernels.coded_layout import DeviceCodes
from jackfield.compute.kernels.launch import runs_hopper_kernels
from jackfield.compute.kernels.quantize_rows import E4M3, quantize_rows

BLOCK = 128
"""Outputs and inputs of a block that has a scale."""

_LEAST_ROWS = 2
"""One row is bound by reading the weight, whatever the inputs are."""

_MAX_FEW_ROWS = 128
"""Up to here cuBLAS leaves processors without work where the weight has few rows."""

_LEAST_ROWS_OF_BLOCKS = 512
_ALIGNED = 16
"""What torch's products in E4M3 ask of the number of inputs and outputs."""


def takes(codes: DeviceCodes, x: Tensor, block_scales: Tensor | None) -> bool:
    """Whether x [T, K] is meant to be multiplied here, by a weight with a scale for each output, or
    one for each block."""
    aligned = codes.outputs % _ALIGNED == 0 and codes.words.shape[1] * 2 == codes.inputs
    if codes.kind != "e4m3" or not aligned or x.dtype is not torch.bfloat16:
        return False
    if codes.group:
        return block_scales is not None and len(x) >= _LEAST_ROWS_OF_BLOCKS
    return len(x) >= _LEAST_ROWS


def multiply_float8(
    x: Tensor,
    codes: DeviceCodes,
    bias: Tensor | None,
    *,
    static: Tensor | None,
    block_scales: Tensor | None,
) -> Tensor:
    """x [T, K], contiguous -> [T, N] in x's dtype. ``static``: float32 of one element, the inputs'
    scale; None: each row (or 128 inputs of it) has one of its own. ``block_scales``: float32
    [N / 128, K / 128]."""
    weight = codes.words.view(E4M3)
    if codes.group:
        assert block_scales is not None
        return _multiply_blocks(x, weight, block_scales, bias)
    rounded, scales = quantize_rows(x, static)
    if len(x) <= _MAX_FEW_ROWS and runs_hopper_kernels(x.device):
        from jackfield.compute.kernels import hopper_linear  # needs Gluon

        return hopper_linear.hopper_linear_float8(
            rounded, scales, weight, codes.row_scales, bias, x.dtype
        )
    out = torch._scaled_mm(
        rounded,
        weight.t(),
        scales,
        codes.row_scales[None, :],
        out_dtype=x.dtype,
        use_fast_accum=True,
    )
    return out if bias is None else out.add_(bias)


def _multiply_blocks(
    x: Tensor, weight: Tensor, block_scales: Tensor, bias: Tensor | None
) -> Tensor:
    rounded, scales = quantize_rows(x, stretch=BLOCK)
    out: Tensor = F.scaled_mm(
        rounded,
        weight.t(),
        scales.t().contiguous().t(),
        ScalingType.BlockWise1x128,
        block_scales.t(),
        ScalingType.BlockWise128x128,
        output_dtype=x.dtype,
    )
    return out if bias is None else out.add_(bias)
