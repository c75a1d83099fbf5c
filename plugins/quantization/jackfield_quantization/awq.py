"""AWQ (arXiv 2306.00978): 4-bit integers with zero points, in groups.

Facts: the "gemm" layout of AutoAWQ. ``qweight`` int32 [K, N / 8] and ``qzeros`` int32
[groups, N / 8] hold eight outputs each, in the order 0 2 4 6 1 3 5 7 from the lowest bits on;
``scales`` [groups, N].
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
from jackfield_quantization.integer_weight import integer_weight
from jackfield_quantization.layer_names import is_listed
from jackfield_quantization.number_formats import unpack
from jackfield_quantization.options import integer, names, require

_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where output i of eight stands."""


class AwqQuantization:
    """Implements ``QuantizationMethod``."""

    name: ClassVar[str] = "awq"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        self._excepted = (*names(config, "modules_to_not_convert"), "lm_head")
        bits = integer(config, "bits" if "bits" in config else "w_bit", 4)
        version = str(config.get("version", "gemm")).lower()
        if bits != 4 or version != "gemm":
            raise CheckpointError(
                f"quantization_config: AWQ with {bits} bits in the layout {version!r} is unknown; "
                "4 bits in the layout 'gemm' are served"
            )
        self._group = integer(config, "group_size" if "group_size" in config else "q_group_size")

    def linear_method(self, prefix: str) -> LinearMethod | None:
        return None if is_listed(prefix, self._excepted) else AwqLinear(self._group)


class AwqMarlinQuantization(AwqQuantization):
    """AWQ under the name of a kernel that other engines have for it."""

    name: ClassVar[str] = "awq_marlin"


class AwqLinear(CodedLinear):
    """The layout "gemm"; a group of -1 is all inputs."""

    def __init__(self, group: int) -> None:
        self._group = group

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        groups = 1 if self._group < 0 else -(-inputs // self._group)
        along_inputs = 0 if groups > 1 else None
        return {
            "qweight": StoredTensor((inputs, outputs // 8), torch.int32, 1, 0),
            "qzeros": StoredTensor((groups, outputs // 8), torch.int32, 1, along_inputs),
            "scales": StoredTensor((groups, outputs), torch.float32, 1, along_inputs),
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        codes, zeros = (_outputs(tensors[name]).T for name in ("qweight", "qzeros"))
        return integer_weight(codes, tensors["scales"].T, zeros, 4)


def _outputs(packed: Tensor) -> Tensor:
    # int32 [X, N / 8] -> uint8 [X, N], the outputs in order.
    places = torch.tensor(_PLACES, device=packed.device)
    eights = unpack(packed, 4, 1).reshape(len(packed), -1, 8)
    return eights.index_select(2, places).flatten(1)
