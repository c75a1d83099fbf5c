"""Where Triton kernels run in tests, and the interpreter made to run under the installed NumPy.

Triton 3.6 converts scalars, which it keeps as arrays of one element, with ``int(array)``: NumPy 2.4
refuses that. Where it rounds to 8 bits, the mantissa's carry does not reach the exponent.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import triton.language as tl
import triton.runtime.interpreter as interpreter

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")

# The interpreter multiplies the bits of bfloat16 matrices as if they were integers.
MATRIX_DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])

_patch_tensor = interpreter._patch_lang_tensor


def _patch_tensor_for_numpy(tensor: Any, scope: Any) -> None:
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


_EIGHT_BITS = {tl.float8e4nv: torch.float8_e4m3fn, tl.float8e5: torch.float8_e5m2}
_convert_float = interpreter._convert_float


def _convert_float_with_carry(
    values: npt.NDArray[Any], of: Any, to: Any, rounding: Any
) -> npt.NDArray[Any]:
    if of != tl.float32 or to not in _EIGHT_BITS:
        converted: npt.NDArray[Any] = _convert_float(values, of, to, rounding)
        return converted
    rounded = torch.from_numpy(values.copy()).to(_EIGHT_BITS[to])
    bits: npt.NDArray[np.uint8] = rounded.view(torch.uint8).numpy()
    return bits


if INTERPRETED:
    interpreter._convert_float = _convert_float_with_carry
    interpreter._patch_lang_tensor = _patch_tensor_for_numpy
