"""Codes in groups along the outputs, which the layout of ``CodedWeight`` has no room for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield_quantization.number_formats import unpack_halves


@dataclass(frozen=True, slots=True)
class ColumnGroups:
    """weight[r + i * R, k] = (code - zeros[r, k]) * scales[r, k] in each checkpoint layer.

    ``codes`` uint8 [N, K], or [N, K / 2] with the first of two in the low half where ``bits`` is 4;
    ``scales`` and ``zeros`` float32, the R rows of one checkpoint layer after the other's, which
    have ``outputs`` outputs.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    outputs: tuple[int, ...]
    bits: int

    def decode(self, dtype: torch.dtype) -> Tensor:
        """The numbers, [N, K], rounded once."""
        codes = unpack_halves(self.codes, low_first=True) if self.bits == 4 else self.codes
        inputs = codes.shape[1]
        size = len(codes) // len(self.scales)
        numbers, end = [], 0
        for part in torch.split(codes, list(self.outputs)):
            begin, end = end, end + len(part) // size
            groups = part.view(size, -1, inputs) - self.zeros[begin:end]
            numbers.append(groups.mul_(self.scales[begin:end]).view(-1, inputs))
        return torch.cat(numbers).to(dtype)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [T, K] -> x @ weight.T + bias, [T, N] in x's dtype."""
        return F.linear(x, self.decode(x.dtype), bias)
