"""QQQ (arXiv 2406.09904): 4-bit weights, meant for 8-bit activations.

Facts: GPTQModel's and QQQ's checkpoints. ``B`` int32 [K / 16, 2 N] in Marlin's way with an order
for int8 tensor cores; ``s_channel`` float32 [1, N]; ``s_group`` float16 [groups, N], empty without
groups. In groups a code is offset binary, times both scales; without, it is in two's complement,
and a sixteenth of what ``s_channel`` multiplies. Activations stay in the model's dtype, and so the
products of code and group scale are not rounded to 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.errors import CheckpointError
from jackfield_quantization.integer_weight import integer_weight
from jackfield_quantization.marlin import (
    SCALES_BY_GROUP,
    SCALES_BY_ROW,
    codes_in_order,
    order,
    scales_in_order,
    scales_stored,
)
from jackfield_quantization.one_method import OneMethod
from jackfield_quantization.options import integer, names, require

_WITHIN_ROWS = (4, 0, 5, 1, 6, 2, 7, 3)
_STEP = 16


class QqqQuantization(OneMethod):
    """Implements ``QuantizationMethod``."""

    name: ClassVar[str] = "qqq"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        self._excepted = (*names(config, "modules_to_not_convert"), "lm_head")
        bits = integer(config, "wbits" if "wbits" in config else "bits")
        if bits != 4:
            raise CheckpointError(f"quantization_config: QQQ with {bits} bits is unknown")
        self._method = _QqqLinear(integer(config, "group_size", -1))


class _QqqLinear(CodedLinear):
    def __init__(self, group: int) -> None:
        self._group = group

    def _has_groups(self, inputs: int) -> bool:
        return 0 < self._group < inputs

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        empty = StoredTensor((0,), torch.float16, None, None, per_part=True)
        has_groups = self._has_groups(inputs)
        return {
            "B": StoredTensor((inputs // 16, outputs * 2), torch.int32, 1, 0),
            "s_channel": StoredTensor((1, outputs), torch.float32, 1, None),
            "s_group": scales_stored(self._group, outputs, inputs) if has_groups else empty,
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        scales = scales_in_order(tensors["s_channel"], SCALES_BY_ROW)
        if self._has_groups(layer.num_inputs):
            codes = codes_in_order(tensors["B"], order(range(4), 4))
            scales = scales * scales_in_order(tensors["s_group"], SCALES_BY_GROUP)
            return integer_weight(codes, scales, None, 4)
        codes = codes_in_order(tensors["B"], order(range(4), 4, _WITHIN_ROWS))
        return integer_weight(codes ^ 8, scales * _STEP, None, 4)
