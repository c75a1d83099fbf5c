"""Products in E4M3: rows rounded with a scale each, tensor cores of 8 bits."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import ScalingType

from jackfield.compute.kernels.coded_layout import DeviceCodes
from jackfield.compute.kernels.launch import converts_e4m3, runs_hopper_kernels
from jackfield.compute.kernels.quantize_rows import E4M3, quantize_rows
from jackfield.compute.kernels.scaled_rows import RoundedRows, Rounding

BLOCK = 128
"""Outputs and inputs of a block that has a scale."""

_LEAST_ROWS = 2
"""One row is bound by reading the weight, whatever the inputs are."""

_MAX_FEW_ROWS = 128
"""Up to here cuBLAS leaves processors without work where the weight has few rows."""

_LEAST_ROWS_OF_BLOCKS = 512
_ALIGNED = 16
"""What torch's products in E4M3 ask of the number of inputs and outputs."""


def takes(
    codes: DeviceCodes, num_rows: int, dtype: torch.dtype, block_scales: Tensor | None
) -> bool:
    """Whether so many rows are meant to be multiplied here, by a weight with a scale for each
    output, or one for each block, and the device can."""
    device = codes.words.device
    aligned = codes.outputs % _ALIGNED == 0 and codes.words.shape[1] * 2 == codes.inputs
    if codes.kind != "e4m3" or not aligned or dtype is not torch.bfloat16:
        return False
    if not converts_e4m3(device):
        return False
    if codes.group:
        has_blocks = block_scales is not None and multiplies_blocks(device)
        return has_blocks and num_rows >= _LEAST_ROWS_OF_BLOCKS
    return num_rows >= _LEAST_ROWS


@cache
def multiplies_blocks(device: torch.device) -> bool:
    """Whether torch multiplies weights with a scale for each block on the device: of GPUs Hopper
    alone (``aten/src/ATen/native/cuda/ScaledBlas.cpp``)."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] == 9


def multiply_float8(
    x: Tensor | RoundedRows,
    codes: DeviceCodes,
    bias: Tensor | None,
    rounding: Rounding,
    block_scales: Tensor | None,
) -> Tensor:
    """x [T, K], contiguous, or rounded by ``rounding`` already -> [T, N] in x's dtype.
    ``block_scales``: float32 [N / 128, K / 128]."""
    weight = codes.words.view(E4M3)
    rows = x if isinstance(x, RoundedRows) else quantize_rows(x, rounding)
    if codes.group:
        assert block_scales is not None
        return _multiply_blocks(rows, weight, block_scales, bias)
    if len(rows) <= _MAX_FEW_ROWS and runs_hopper_kernels(weight.device):
        from jackfield.compute.kernels import hopper_linear  # needs Gluon

        return hopper_linear.hopper_linear_float8(
            rows.rows, rows.scales, weight, codes.row_scales, bias, rows.dtype
        )
    out = torch._scaled_mm(
        rows.rows,
        weight.t(),
        rows.scales,
        codes.row_scales[None, :],
        out_dtype=rows.dtype,
        use_fast_accum=True,
    )
    return out if bias is None else out.add_(bias)


def _multiply_blocks(
    x: RoundedRows, weight: Tensor, block_scales: Tensor, bias: Tensor | None
) -> Tensor:
    out: Tensor = F.scaled_mm(
        x.rows,
        weight.t(),
        x.scales.t().contiguous().t(),
        ScalingType.BlockWise1x128,
        block_scales.t(),
        ScalingType.BlockWise128x128,
        output_dtype=x.dtype,
    )
    return out if bias is None else out.add_(bias)
