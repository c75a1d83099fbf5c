"""``--quantization int8``: a plain checkpoint, its weights rounded to 8 bits while it loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield_quantization.layer_names import is_listed, is_router
from jackfield_quantization.options import names

_ROWS_AT_ONCE = 4096


class Int8Quantization:
    """Implements ``QuantizationMethod``: signed integers with a scale for each output."""

    name: ClassVar[str] = "int8"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        self._excepted = names(config, "ignore", "modules_to_not_convert")

    def linear_method(self, prefix: str) -> LinearMethod | None:
        if is_listed(prefix, self._excepted) or is_router(prefix):
            return None
        return OnlineInt8()


class ChannelInt8Quantization(Int8Quantization):
    """The same by a name that other engines have for it."""

    name: ClassVar[str] = "int8_per_channel_weight_only"


class OnlineInt8(CodedLinear):
    """Rounds to the nearest of 255 steps of the row's largest magnitude."""

    is_online: ClassVar[bool] = True

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        return {"weight": StoredTensor((outputs, inputs), dtype)}

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        weight = tensors["weight"]
        codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        scales = torch.empty((len(weight), 1), device=weight.device)
        for rows in row_ranges(weight):
            numbers = weight[rows].float()
            scales[rows] = numbers.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
            codes[rows] = (numbers / scales[rows]).round_().to(torch.int8)
        return CodedWeight.pack(codes, scales, bits=8)


def row_ranges(weight: Tensor) -> Iterator[slice]:
    """A few rows at a time: float32 copies of a whole head would need gigabytes."""
    for begin in range(0, len(weight), _ROWS_AT_ONCE):
        yield slice(begin, begin + _ROWS_AT_ONCE)
