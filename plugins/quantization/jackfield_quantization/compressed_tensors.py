"""compressed-tensors: what llm-compressor writes, a format for each group of layers.

Facts: https://github.com/vllm-project/compressed-tensors. ``config_groups`` name their layers by
``targets`` (the class "Linear", layer names, ``re:`` patterns), ``ignore`` names exceptions. Packed
integers are offset binary, along the inputs from the lowest bits on; zero points are packed along
the outputs in the same way. A global scale of NVFP4 is a divisor. Activations stay in the model's
dtype, but for E4M3 on a GPU; other scales of theirs are read and not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import (
    CodedLinear,
    Float8Inputs,
    LinearParts,
    Multiplies,
    Ordered,
    StoredTensor,
)
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield.errors import CheckpointError
from jackfield_quantization.fp8 import E4M3, by_blocks, from_floats, input_scale
from jackfield_quantization.integer_weight import integer_weight
from jackfield_quantization.layer_names import is_listed
from jackfield_quantization.marlin import Marlin24Linear
from jackfield_quantization.mxfp8 import MxFp8Linear
from jackfield_quantization.number_formats import e2m1, powers_of_2, unpack, unpack_halves
from jackfield_quantization.options import Config, flag, integer, names, pair, require, section

_NVFP4_GROUP, _MXFP4_GROUP = 16, 32


class CompressedTensorsQuantization:
    """Implements ``QuantizationMethod``."""

    name: ClassVar[str] = "compressed-tensors"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        self._ignored = names(config, "ignore")
        self._groups: list[tuple[tuple[str, ...], LinearMethod]] = []
        for group in section(config, "config_groups").values():
            if isinstance(group, Mapping):
                form = str(group.get("format") or config.get("format", "dense"))
                self._groups.append((names(group, "targets"), _method(form, group)))

    def linear_method(self, prefix: str) -> LinearMethod | None:
        if is_listed(prefix, self._ignored):
            return None
        # A name or a pattern goes before the class, whichever group comes first.
        named = (method for targets, method in self._groups if is_listed(prefix, targets))
        others = (method for targets, method in self._groups if "Linear" in targets)
        return next(chain(named, others), None)


def _method(form: str, group: Config) -> LinearMethod:
    weights, inputs = section(group, "weights"), section(group, "input_activations")
    static = bool(inputs) and inputs.get("dynamic") is False
    if form == "pack-quantized":
        return PackedIntegers(weights)
    if form in ("nvfp4-pack-quantized", "mxfp4-pack-quantized"):
        return PackedFloats(nvidia=form.startswith("nvfp4"), static=bool(inputs))
    if form == "marlin-24":
        size = integer(weights, "group_size") if weights.get("strategy") == "group" else -1
        names = ("weight_packed", "meta", "scale_packed")
        return Marlin24Linear(integer(weights, "num_bits"), size, names)
    if form == "mxfp8-quantized":
        return MxFp8Linear()
    if form in ("int-quantized", "float-quantized", "naive-quantized"):
        return PlainCodes(
            weights,
            rounds_inputs=bool(inputs),
            static=static,
            symmetric=flag(inputs, "symmetric", True),
        )
    raise CheckpointError(f"quantization_config: the compressed-tensors format {form!r} is unknown")


def _group_size(weights: Config, inputs: int) -> int:
    return integer(weights, "group_size") if weights.get("strategy") == "group" else inputs


class PackedIntegers(CodedLinear):
    """Integers of 1 to 8 bits, several in an int32."""

    def __init__(self, weights: Config) -> None:
        self._weights = weights
        self._bits = integer(weights, "num_bits")
        if weights.get("type") != "int" or not 1 <= self._bits <= 8:
            raise CheckpointError(
                f"quantization_config: packed {weights.get('type')} of {self._bits} bits is unknown"
            )

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        groups = inputs // _group_size(self._weights, inputs)
        along_inputs = 1 if groups > 1 else None
        packed = inputs * self._bits // 32
        tensors = {
            "weight_packed": StoredTensor((outputs, packed), torch.int32),
            "weight_scale": StoredTensor((outputs, groups), torch.float32, 0, along_inputs),
            "weight_shape": StoredTensor((2,), torch.int64, None, None, per_part=True),
        }
        if not flag(self._weights, "symmetric", True):
            shape = (outputs * self._bits // 32, groups)
            tensors["weight_zero_point"] = StoredTensor(shape, torch.int32, 0, along_inputs)
        if self._weights.get("actorder") in ("group", "dynamic"):
            tensors["weight_g_idx"] = StoredTensor((inputs,), torch.int32, None, 0, per_part=True)
        return tensors

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight | Ordered:
        codes = unpack(tensors["weight_packed"], self._bits, 1)
        zeros = tensors.get("weight_zero_point")
        if zeros is not None:
            zeros = unpack(zeros, self._bits, 0)
        groups = tensors.get("weight_g_idx")
        scales = tensors["weight_scale"]
        if groups is None:
            return integer_weight(codes, scales, zeros, self._bits)
        if not bool((groups == groups[:1]).all()):
            raise CheckpointError("layers that are fused here have inputs in different orders")
        order = torch.argsort(groups[0], stable=True)
        return Ordered(integer_weight(codes[:, order], scales, zeros, self._bits), order)


class PlainCodes(CodedLinear):
    """int8 or E4M3, a byte each; scales by tensor, channel, group or block."""

    def __init__(
        self, weights: Config, *, rounds_inputs: bool, static: bool, symmetric: bool
    ) -> None:
        self._weights = weights
        self._rounds_inputs = rounds_inputs
        self._static = static
        self._symmetric = symmetric
        self._floats = weights.get("type") == "float"
        self._strategy = str(weights.get("strategy", "tensor"))
        if integer(weights, "num_bits") != 8:
            raise CheckpointError("quantization_config: codes that are not packed have 8 bits")
        self._block = pair(weights, "block_structure") if self._strategy == "block" else (0, 0)

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        weight = StoredTensor((outputs, inputs), E4M3 if self._floats else torch.int8)
        one = StoredTensor((1,), torch.float32, None, None, per_part=True)
        tensors = {"weight": weight, "weight_scale": self._scale(outputs, inputs, one)}
        if self._static:
            tensors["input_scale"] = one
            if not self._symmetric:
                tensors["input_zero_point"] = StoredTensor(
                    (1,), torch.int8, None, None, per_part=True
                )
        return tensors

    def _scale(self, outputs: int, inputs: int, one: StoredTensor) -> StoredTensor:
        if self._strategy == "tensor":
            return one
        if self._strategy == "block":
            blocks = (-(-outputs // self._block[0]), -(-inputs // self._block[1]))
            return StoredTensor(blocks, torch.float32)
        groups = inputs // _group_size(self._weights, inputs)
        return StoredTensor((outputs, groups), torch.float32, 0, 1 if groups > 1 else None)

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> Multiplies:
        weight, scales = tensors["weight"], tensors["weight_scale"]
        if self._strategy == "tensor":
            scales = layer.spread(scales)
        elif self._strategy == "block":
            scales = by_blocks(scales, weight.shape, self._block)
        if self._floats:
            codes = from_floats(weight, scales)
            return Float8Inputs(codes, input_scale(tensors)) if self._rounds_inputs else codes
        return CodedWeight.pack(weight, scales, bits=8)


class PackedFloats(CodedLinear):
    """FP4 (E2M1), two in a byte: NVFP4 (E4M3 scales of 16 and a global one) or MXFP4 (powers of
    2 for 32)."""

    def __init__(self, *, nvidia: bool, static: bool) -> None:
        self._nvidia = nvidia
        self._static = static

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        group = _NVFP4_GROUP if self._nvidia else _MXFP4_GROUP
        scale_dtype = E4M3 if self._nvidia else torch.uint8
        tensors = {
            "weight_packed": StoredTensor((outputs, inputs // 2), torch.uint8),
            "weight_scale": StoredTensor((outputs, inputs // group), scale_dtype),
        }
        one = StoredTensor((1,), torch.float32, None, None, per_part=True)
        if self._nvidia:
            tensors["weight_global_scale"] = one
            if self._static:
                tensors["input_global_scale"] = one
        return tensors

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        scales = tensors["weight_scale"]
        if self._nvidia:
            scales = scales.float() / layer.spread(tensors["weight_global_scale"])
        else:
            scales = powers_of_2(scales)
        return fp4_weight(tensors["weight_packed"], scales)


def fp4_weight(packed: Tensor, scales: Tensor) -> CodedWeight:
    """E2M1 numbers, uint8 [N, K / 2] with the first in the low half, and scales [N, groups]."""
    codes = unpack_halves(packed, low_first=True)
    return CodedWeight.pack(codes, scales, bits=4, table=e2m1().to(packed.device))
