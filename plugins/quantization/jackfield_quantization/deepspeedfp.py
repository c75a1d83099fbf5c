"""``--quantization deepspeedfp``: a plain checkpoint rounded to 6- or 8-bit floats in groups.

Facts: DeepSpeed's FP quantizer and vLLM's configuration of it, ``bits`` (8 unless it says 6) and
``group_size`` (512): 6 bits are E3M2, 8 bits E4M3, a group's largest magnitude being the format's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import LinearParts
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.errors import CheckpointError
from jackfield_quantization.fp8 import E4M3, LARGEST, from_floats
from jackfield_quantization.number_formats import small_floats
from jackfield_quantization.one_method import OneMethod
from jackfield_quantization.online import OnlineLinear, row_ranges
from jackfield_quantization.options import integer, names


class DeepSpeedFpQuantization(OneMethod):
    """Implements ``QuantizationMethod``."""

    name: ClassVar[str] = "deepspeedfp"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        self._excepted = (*names(config, "modules_to_not_convert"), "lm_head")
        bits, group = integer(config, "bits", 8), integer(config, "group_size", 512)
        if bits not in (6, 8):
            raise CheckpointError(f"quantization_config: deepspeedfp has 6 or 8 bits, not {bits}")
        self._method = _SixBits(group) if bits == 6 else _EightBits(group)


class _EightBits(OnlineLinear):
    """E4M3; a group is at most as long as a row."""

    _largest: ClassVar[float] = LARGEST

    def __init__(self, group: int) -> None:
        self._group = group

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        weight = tensors["weight"]
        group = gcd(weight.shape[1], self._group)
        codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
        scales = torch.empty((len(weight), weight.shape[1] // group), device=weight.device)
        for rows in row_ranges(weight):
            blocks = weight[rows].float().view(-1, scales.shape[1], group)
            scales[rows] = blocks.abs().amax(2).clamp_min(1e-12) / self._largest
            codes[rows] = self._codes(blocks / scales[rows][..., None]).flatten(1)
        return self._weight(codes, scales)

    def _codes(self, numbers: Tensor) -> Tensor:
        return numbers.to(E4M3).view(torch.uint8)

    def _weight(self, codes: Tensor, scales: Tensor) -> CodedWeight:
        return from_floats(codes.view(E4M3), scales)


class _SixBits(_EightBits):
    """E3M2: a byte for each here."""

    _largest: ClassVar[float] = 28.0

    def _codes(self, numbers: Tensor) -> Tensor:
        positive = small_floats(exponent_bits=3, mantissa_bits=2).to(numbers.device)
        middles = (positive[1:] + positive[:-1]) / 2
        places = torch.bucketize(numbers.abs(), middles).to(torch.uint8)
        return places | (numbers < 0).to(torch.uint8) << 5

    def _weight(self, codes: Tensor, scales: Tensor) -> CodedWeight:
        positive = small_floats(exponent_bits=3, mantissa_bits=2).to(codes.device)
        table = torch.zeros(256, device=codes.device)
        table[:32], table[32:64] = positive, -positive
        return CodedWeight.pack(codes, scales, bits=8, table=table)
