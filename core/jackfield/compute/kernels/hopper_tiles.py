"""How tiles of matrices come to shared memory, for the kernels in Gluon."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

_ELEMENTS = {
    torch.bfloat16: gl.bfloat16,
    torch.float16: gl.float16,
    torch.float8_e4m3fn: gl.float8e4nv,
}


@cache
def shared_layout(dtype: torch.dtype, *shape: int) -> Any:
    """Where a tile's numbers lie in shared memory, as wgmma reads them without conflicts."""
    return gl.NVMMASharedLayout.get_default_for(list(shape), _ELEMENTS[dtype])


def described(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A contiguous matrix of which tiles [rows, columns] are copied; outside of it are zeros."""
    layout = shared_layout(matrix.dtype, rows, columns)
    shape = list(matrix.shape)
    return TensorDescriptor(matrix, shape, [shape[1], 1], [rows, columns], layout)


def described_gated(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A contiguous matrix [2N, K], N a multiple of 8, of which tiles [rows / 16, 2, 8, columns] are
    copied: 8 rows of its first half, the 8 that belong to them of the second half, and so on."""
    tile = [rows // 16, 2, 8, columns]
    n, k = matrix.shape[0] // 2, matrix.shape[1]
    strides = [8 * k, n * k, k, 1]
    layout = shared_layout(matrix.dtype, *tile)
    return TensorDescriptor(matrix, [n // 8, 2, 8, k], strides, tile, layout)
