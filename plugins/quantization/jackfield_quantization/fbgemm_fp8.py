"""FBGEMM's FP8 checkpoints (Llama 3.1 405B): E4M3 with a scale for each output.

Facts: what transformers' FbgemmFp8Config writes: ``weight`` E4M3 [N, K], ``weight_scale`` [N, 1].
``activation_scale_ub`` bounds the scales of activations, which stay in the model's dtype here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jackfield_quantization.fp8 import TensorFp8
from jackfield_quantization.one_method import OneMethod
from jackfield_quantization.options import names, require


class FbgemmFp8Quantization(OneMethod):
    """Implements ``QuantizationMethod``."""

    name: ClassVar[str] = "fbgemm_fp8"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        self._excepted = (*names(config, "modules_to_not_convert", "ignored_layers"), "lm_head")
        self._method = TensorFp8(static=False, by_channel=True)
