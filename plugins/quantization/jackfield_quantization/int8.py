"""``--quantization int8``: a plain checkpoint, its weights rounded to 8 bits while it loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield_quantization.layer_names import is_listed
from jackfield_quantization.options import names


class Int8Quantization:
    """Implements ``QuantizationMethod``: signed integers with a scale for each output."""

    name: ClassVar[str] = "int8"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        self._excepted = names(config, "ignore", "modules_to_not_convert")

    def linear_method(self, prefix: str) -> LinearMethod | None:
        return None if is_listed(prefix, self._excepted) else OnlineInt8()


class OnlineInt8(CodedLinear):
    """Rounds to the nearest of 255 steps of the row's largest magnitude."""

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        return {"weight": StoredTensor((outputs, inputs), dtype)}

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        weight = tensors["weight"].float()
        scales = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        codes = (weight / scales).round_().to(torch.int8)
        return CodedWeight.pack(codes, scales, bits=8)
