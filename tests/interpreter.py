"""Where Triton kernels run in tests, and the interpreter made to run under the installed NumPy.

Triton 3.6 converts scalars, which it keeps as arrays of one element, with ``int(array)``: NumPy 2.4
refuses that.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton.runtime.interpreter as interpreter

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")

# The interpreter multiplies the bits of bfloat16 matrices as if they were integers.
MATRIX_DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])

_patch_tensor = interpreter._patch_lang_tensor


def _patch_tensor_for_numpy(tensor: Any, scope: Any) -> None:
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


if INTERPRETED:
    interpreter._patch_lang_tensor = _patch_tensor_for_numpy
