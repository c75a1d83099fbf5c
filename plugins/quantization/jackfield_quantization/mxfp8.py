"""MXFP8 checkpoints: E4M3 numbers, and a power of 2 for 32 of them.

Facts: the OCP Microscaling specification 1.0; the files of ModelOpt and of compressed-tensors
(``mxfp8-quantized``): ``weight`` E4M3 [N, K], ``weight_scale`` uint8 [N, K / 32], 127 being 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield_quantization.fp8 import E4M3, from_floats
from jackfield_quantization.number_formats import powers_of_2

_GROUP = 32


class MxFp8Linear(CodedLinear):
    """A layer of such a checkpoint."""

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        return {
            "weight": StoredTensor((outputs, inputs), E4M3),
            "weight_scale": StoredTensor((outputs, inputs // _GROUP), torch.uint8),
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        return from_floats(tensors["weight"], powers_of_2(tensors["weight_scale"]))
