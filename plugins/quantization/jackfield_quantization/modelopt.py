"""NVIDIA ModelOpt: FP8 and NVFP4 checkpoints.

Facts: the files that ModelOpt exports. FP8: ``weight`` E4M3, ``weight_scale`` and ``input_scale``
of the layer. NVFP4: ``weight`` uint8 [N, K / 2], ``weight_scale`` E4M3 [N, K / 16], and
``weight_scale_2``, which is multiplied (compressed-tensors divides).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield.errors import CheckpointError
from jackfield_quantization.compressed_tensors import fp4_weight
from jackfield_quantization.fp8 import E4M3, TensorFp8
from jackfield_quantization.layer_names import is_listed
from jackfield_quantization.options import names, require, section

_GROUP = 16


class ModelOptQuantization:
    """Implements ``QuantizationMethod``; the algorithm is in ``quant_algo``."""

    name: ClassVar[str] = "modelopt"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        inner = section(config, "quantization") or config
        self._excepted = names(inner, "exclude_modules", "ignore")
        algorithm = str(inner.get("quant_algo", "")).upper()
        methods: dict[str, LinearMethod] = {
            "FP8": TensorFp8(static=True),
            "NVFP4": _NvFp4(with_input=True),
            "W4A16_NVFP4": _NvFp4(with_input=False),
        }
        if algorithm not in methods:
            raise CheckpointError(
                f"quantization_config: quant_algo {algorithm or None!r} is unknown; "
                f"{', '.join(methods)} are served"
            )
        self._method = methods[algorithm]

    def linear_method(self, prefix: str) -> LinearMethod | None:
        return None if is_listed(prefix, self._excepted) else self._method


class _NvFp4(CodedLinear):
    def __init__(self, *, with_input: bool) -> None:
        self._with_input = with_input

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        one = StoredTensor((), torch.float32, None, None, per_part=True)
        tensors = {
            "weight": StoredTensor((outputs, inputs // 2), torch.uint8),
            "weight_scale": StoredTensor((outputs, inputs // _GROUP), E4M3),
            "weight_scale_2": one,
        }
        if self._with_input:
            tensors["input_scale"] = one
        return tensors

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        scales = tensors["weight_scale"].float() * layer.spread(tensors["weight_scale_2"])
        return fp4_weight(tensors["weight"], scales)
