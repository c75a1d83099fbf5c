"""``--quantization int8``: a plain checkpoint, its weights rounded to 8 bits while it loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import LinearParts
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield_quantization.one_method import OneMethod
from jackfield_quantization.online import OnlineLinear, row_ranges
from jackfield_quantization.options import names


class Int8Quantization(OneMethod):
    """Implements ``QuantizationMethod``: signed integers with a scale for each output."""

    name: ClassVar[str] = "int8"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        self._excepted = names(config, "ignore", "modules_to_not_convert")
        self._method = OnlineInt8()


class ChannelInt8Quantization(Int8Quantization):
    """The same by a name that other engines have for it."""

    name: ClassVar[str] = "int8_per_channel_weight_only"


class OnlineInt8(OnlineLinear):
    """Rounds to the nearest of 255 steps of the row's largest magnitude."""

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        weight = tensors["weight"]
        codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        scales = torch.empty((len(weight), 1), device=weight.device)
        for rows in row_ranges(weight):
            numbers = weight[rows].float()
            scales[rows] = numbers.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
            codes[rows] = (numbers / scales[rows]).round_().to(torch.int8)
        return CodedWeight.pack(codes, scales, bits=8)
