"""A coded weight on a GPU: a kernel for few rows, tensor cores of 8 or 16 bits for many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.kernels import coded, coded_decode, coded_wide
from jackfield.compute.kernels.coded_layout import DeviceCodes, device_codes
from jackfield.compute.kernels.float8 import BLOCK, multiply_float8, takes
from jackfield.compute.kernels.launch import runs_hopper_kernels
from jackfield.compute.kernels.quantize_rows import add_rms_norm_rounded, silu_and_mul_rounded
from jackfield.compute.kernels.scaled_rows import (
    NormedRows,
    PassedRows,
    RoundedRows,
    Rounding,
    ScaledRows,
)
from jackfield.compute.layers.coded_weight import CodedWeight

_DECODED_NUMBERS = 64 << 20
"""At most so many numbers of a layer are there at once in the model's dtype."""


@dataclass(frozen=True, slots=True)
class DeviceWeight:
    """[N, K] numbers for the kernels of a GPU.

    ``rounds_inputs``: products of many rows round their inputs to E4M3, by the scale
    ``input_scale`` (float32 of one element) or one for each row. ``block_scales``: as
    ``multiply_float8`` takes them.
    """

    codes: DeviceCodes
    rounds_inputs: bool = False
    input_scale: Tensor | None = None
    block_scales: Tensor | None = None

    @classmethod
    def of(cls, weight: CodedWeight) -> DeviceWeight | None:
        """None where the kernels have no way with the weight."""
        codes = device_codes(weight)
        return None if codes is None else cls(codes)

    @classmethod
    def rounding_inputs(cls, weight: CodedWeight, scale: Tensor | None) -> DeviceWeight | None:
        """``of``, with inputs that are meant to be rounded."""
        codes = device_codes(weight)
        if codes is None:
            return None
        # A scale that all rows of a block share is the block's.
        blocks = None if scale is not None else _block_scales(weight)
        return cls(codes, True, scale, blocks)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [T, K] -> x @ weight.T + bias, [T, N] in x's dtype."""
        x = x.contiguous()
        num_rows = len(x)
        rounding = self.rounding(num_rows, x.dtype)
        if rounding is not None:
            return multiply_float8(x, self.codes, bias, rounding, self.block_scales)
        hopper = self._hopper(x)
        if hopper is not None:
            product: Tensor = hopper.linear(x, self.codes, bias)
            return product
        if x.dtype in coded.DTYPES and 0 < num_rows <= coded_wide.MAX_ROWS:
            few = num_rows <= coded.MAX_ROWS
            multiply = coded.linear_codes if few else coded_wide.linear_wide
            return multiply(x, self.codes, bias)
        if self.codes.outputs * self.codes.inputs <= _DECODED_NUMBERS:
            return F.linear(x, coded_decode.decoded(self.codes, x.dtype), bias)
        out = torch.empty((num_rows, self.codes.outputs), dtype=x.dtype, device=x.device)
        for rows in self._stretches():
            part = coded_decode.decoded(self.codes.rows(rows), x.dtype)
            torch.mm(x, part.T, out=out[:, rows])
        return out if bias is None else out.add_(bias)

    def multiply_gated(
        self, x: Tensor | PassedRows, bias: Tensor | None, reader: DeviceWeight | None
    ) -> Tensor | RoundedRows | None:
        """SiLU of the first half of ``multiply``'s outputs times the second half, [T, N / 2], as
        ``reader``, if it is known, takes it; None where that is no kernel of its own."""
        assert not isinstance(x, NormedRows), "these come with plain weights only"
        if not isinstance(x, RoundedRows):
            hopper = self._hopper(x.rows if isinstance(x, ScaledRows) else x)
            if hopper is not None and hopper.takes_gated(len(x), self.codes):
                gated: Tensor = hopper.gated(x, self.codes, bias)
                return gated
        dtype = x.rows.dtype if isinstance(x, ScaledRows) else x.dtype
        rounding = None if reader is None else reader.rounding(len(x), dtype)
        if rounding is None:
            return None
        both = self.multiply(x, bias) if isinstance(x, Tensor) else self.multiply_passed(x, bias)
        return silu_and_mul_rounded(both, rounding)

    def rounding(self, num_rows: int, dtype: torch.dtype) -> Rounding | None:
        """How so many rows of a dtype are rounded for a product; None where they are not."""
        if not self.rounds_inputs or not takes(self.codes, num_rows, dtype, self.block_scales):
            return None
        return Rounding(self.input_scale, BLOCK if self.codes.group else None)

    def multiply_passed(self, x: PassedRows, bias: Tensor | None = None) -> Tensor:
        """``multiply`` of the rows that these become or stand for."""
        if isinstance(x, RoundedRows):
            rounding = self.rounding(len(x), x.dtype)
            assert rounding is not None, "rows are only rounded for a weight that takes them"
            return multiply_float8(x, self.codes, bias, rounding, self.block_scales)
        hopper = self._hopper(x.rows)
        assert hopper is not None, "rows are only scaled for a kernel that takes them"
        product: Tensor = hopper.linear(x, self.codes, bias)
        return product

    def multiply_add(
        self,
        x: Tensor | RoundedRows,
        bias: Tensor | None,
        residual: Tensor,
        norm_weight: Tensor,
        eps: float,
        reader: DeviceWeight,
    ) -> PassedRows | None:
        """``multiply`` plus ``residual``, which becomes the sum, then RMSNorm with ``norm_weight``,
        as ``reader`` takes it; None where the norm is better left to its own kernel."""
        rounding = reader.rounding(len(residual), residual.dtype)
        if rounding is not None and residual.is_contiguous():
            y = self.multiply(x, bias) if isinstance(x, Tensor) else self.multiply_passed(x, bias)
            return add_rms_norm_rounded(y, residual, norm_weight, eps, rounding)
        hopper = self._hopper(x) if isinstance(x, Tensor) and x.dtype is torch.bfloat16 else None
        if hopper is None or reader._hopper(residual) is None:
            return None
        scaled: ScaledRows = hopper.add(x, self.codes, bias, residual, norm_weight, eps)
        return scaled

    def _hopper(self, x: Tensor) -> ModuleType | None:
        # Hopper's kernels, where they take these rows and this weight.
        fits = x.dtype in coded.DTYPES and x.is_contiguous()
        if not fits or not runs_hopper_kernels(x.device):
            return None
        from jackfield.compute.kernels import coded_hopper  # needs Gluon

        return coded_hopper if coded_hopper.takes(len(x), self.codes) else None

    def _stretches(self) -> Iterator[slice]:
        codes = self.codes
        # Strips have 16 rows; matrix products like multiples of 256.
        step = max(256, _DECODED_NUMBERS // codes.inputs // 256 * 256)
        for begin in range(0, codes.outputs, step):
            yield slice(begin, min(begin + step, codes.outputs))


def _block_scales(weight: CodedWeight) -> Tensor | None:
    outputs, groups = weight.scales.shape
    if weight.group_size != BLOCK or outputs % BLOCK:
        return None
    blocks = weight.scales.view(-1, BLOCK, groups)
    return blocks[:, 0].contiguous() if bool((blocks == blocks[:, :1]).all()) else None
