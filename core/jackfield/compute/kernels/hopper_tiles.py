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
def shared_layout(rows: int, columns: int, dtype: torch.dtype) -> Any:
    """Where a tile's numbers lie in shared memory, as wgmma reads them without conflicts."""
    return gl.NVMMASharedLayout.get_default_for([rows, columns], _ELEMENTS[dtype])


def described(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A contiguous matrix of which tiles [rows, columns] are copied; outside of it are zeros."""
    layout = shared_layout(rows, columns, matrix.dtype)
    shape = list(matrix.shape)
    return TensorDescriptor(matrix, shape, [shape[1], 1], [rows, columns], layout)
