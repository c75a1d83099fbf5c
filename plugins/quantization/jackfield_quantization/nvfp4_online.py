"""``--quantization nvfp4_online``: a plain checkpoint rounded to NVFP4 while it loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield.errors import ConfigError
from jackfield_quantization.fp8 import E4M3, LARGEST
from jackfield_quantization.layer_names import is_router
from jackfield_quantization.number_formats import e2m1
from jackfield_quantization.online import OnlineLinear, row_ranges
from jackfield_quantization.options import round_plain

_GROUP = 16
_LARGEST_CODE = 6.0


class OnlineNvFp4Quantization:
    """Implements ``QuantizationMethod``; the head stays plain."""

    name: ClassVar[str] = "nvfp4_online"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        round_plain(config, self.name)
        self._method = OnlineNvFp4()

    def linear_method(self, prefix: str) -> LinearMethod | None:
        return None if prefix == "lm_head" or is_router(prefix) else self._method


class NvFp4PerTokenQuantization(OnlineNvFp4Quantization):
    """The same by another name; the tokens are not rounded."""

    name: ClassVar[str] = "nvfp4_per_token"


class OnlineNvFp4(OnlineLinear):
    """E2M1 numbers; an E4M3 scale for 16 of them and one for each checkpoint layer."""

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        if inputs % _GROUP:
            raise ConfigError(f"NVFP4 needs layers whose inputs are a multiple of {_GROUP}")
        return super().stored(outputs, inputs, dtype)

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        weight = tensors["weight"]
        largest = torch.stack(
            [part.abs().amax() for part in torch.split(weight, list(layer.outputs))]
        )
        whole = layer.spread(largest).clamp_min(1e-12) / (_LARGEST_CODE * LARGEST)
        table = e2m1().to(weight.device)
        middles = (table[1:8] + table[:7]) / 2
        codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
        scales = torch.empty((len(weight), weight.shape[1] // _GROUP), device=weight.device)
        for rows in row_ranges(weight):
            blocks = weight[rows].float().view(-1, scales.shape[1], _GROUP)
            steps = (blocks.abs().amax(2) / _LARGEST_CODE / whole[rows]).to(E4M3).float()
            scales[rows] = steps * whole[rows]
            numbers = blocks / scales[rows].clamp_min(1e-30)[..., None]
            places = torch.bucketize(numbers.abs(), middles).to(torch.uint8)
            codes[rows] = (places | (numbers < 0).to(torch.uint8) << 3).flatten(1)
        return CodedWeight.pack(codes, scales, bits=4, table=table)
