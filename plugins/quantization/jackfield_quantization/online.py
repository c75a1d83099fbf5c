"""Weights that are rounded while a plain checkpoint loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, StoredTensor

_ROWS_AT_ONCE = 4096


class OnlineLinear(CodedLinear):
    """The checkpoint has the weight as it is; subclasses round it in ``encode``."""

    is_online: ClassVar[bool] = True

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        return {"weight": StoredTensor((outputs, inputs), dtype)}


def row_ranges(weight: Tensor) -> Iterator[slice]:
    """A few rows at a time: float32 copies of a whole head would need gigabytes."""
    for begin in range(0, len(weight), _ROWS_AT_ONCE):
        yield slice(begin, begin + _ROWS_AT_ONCE)
