"""``--quantization int4``: a plain checkpoint, its weights rounded to 4 bits while it loads.

The head keeps 8 bits: it is read once a token, and every logit depends on one row of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import LinearParts
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield_quantization.int8 import Int8Quantization
from jackfield_quantization.layer_names import is_listed
from jackfield_quantization.number_formats import signed_integers
from jackfield_quantization.online import OnlineLinear, row_ranges

_GROUP = 64


class Int4Quantization(Int8Quantization):
    """Implements ``QuantizationMethod``: integers from -8 to 7 in groups of 64 inputs."""

    name: ClassVar[str] = "int4"

    def linear_method(self, prefix: str) -> LinearMethod | None:
        method = super().linear_method(prefix)
        return method if method is None or is_listed(prefix, ("lm_head",)) else OnlineInt4()


class OnlineInt4(OnlineLinear):
    """Rounds to the nearest of 16 steps; the largest magnitude of a group is -8 of them."""

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        weight = tensors["weight"]
        group = _GROUP if weight.shape[1] % _GROUP == 0 else weight.shape[1]
        codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
        scales = torch.empty((len(weight), weight.shape[1] // group), device=weight.device)
        for rows in row_ranges(weight):
            blocks = weight[rows].float().view(-1, scales.shape[1], group)
            places = blocks.abs().argmax(2, keepdim=True)
            scales[rows] = blocks.gather(2, places)[..., 0] / -8
            steps = torch.where(scales[rows] == 0, 1.0, scales[rows])[..., None]
            codes[rows] = ((blocks / steps).round_().clamp_(-8, 7) + 8).to(torch.uint8).flatten(1)
        table = signed_integers().to(weight.device)
        return CodedWeight.pack(codes, scales, bits=4, table=table)
