"""FP8 weights: checkpoints with scales by tensor, channel or block, and plain ones rounded online.

Facts: the ``quantization_config`` of DeepSeek-V3 and Qwen3-FP8 (blocks: ``weight_scale_inv``,
which is multiplied), of llm-compressor's and AutoFP8's checkpoints (tensors: ``weight_scale``).
A GPU rounds the inputs of large products too, by ``input_scale`` where there is one; elsewhere
activations stay in the model's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import (
    CodedLinear,
    Float8Inputs,
    LinearParts,
    StoredTensor,
)
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield_quantization.number_formats import eight_bit_floats
from jackfield_quantization.one_method import OneMethod
from jackfield_quantization.online import OnlineLinear
from jackfield_quantization.options import flag, names, pair

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0
"""Of E4M3."""


class Fp8Quantization(OneMethod):
    """Implements ``QuantizationMethod``: ``quant_method`` ``fp8``, or online without a config."""

    name: ClassVar[str] = "fp8"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        listed = names(config, "ignored_layers", "modules_to_not_convert")
        # DeepSeek's checkpoints have a plain head, and no list.
        self._excepted = (*listed, "lm_head") if config else listed
        self._method = _method(config)


def _method(config: Mapping[str, object]) -> LinearMethod:
    if not config:
        return OnlineFp8()
    if config.get("weight_block_size") is not None:
        return BlockFp8(*pair(config, "weight_block_size"))
    static = config.get("activation_scheme") == "static"
    return TensorFp8(static=static, by_channel=flag(config, "per_channel", False))


def from_floats(codes: Tensor, scales: Tensor) -> CodedWeight:
    """An E4M3 (or E5M2) tensor [N, K] with scales [N, groups]."""
    table = eight_bit_floats(codes.dtype).to(codes.device)
    return CodedWeight.pack(codes.view(torch.uint8), scales, bits=8, table=table)


class OnlineFp8(OnlineLinear):
    """Rounds to E4M3, a scale for each output."""

    def steps(self, layer: LinearParts, weight: Tensor) -> Tensor:
        """The scales of a weight float32 [N, K], [N, groups]."""
        return weight.abs().amax(1, keepdim=True) / LARGEST

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> Float8Inputs:
        weight = tensors["weight"].float()
        scales = self.steps(layer, weight).clamp_min(1e-12)
        groups = weight.view(*scales.shape, -1) / scales[..., None]
        # MXFP8's scales leave a number above the largest one.
        codes = groups.clamp_(-LARGEST, LARGEST).to(E4M3)
        return Float8Inputs(from_floats(codes.view(weight.shape), scales), None)


class TensorFp8(CodedLinear):
    """One scale for each checkpoint layer, or one for each output."""

    def __init__(self, *, static: bool, by_channel: bool = False) -> None:
        self._static = static
        self._by_channel = by_channel

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        scale = StoredTensor((), torch.float32, None, None, per_part=True)
        if self._by_channel:
            scale = StoredTensor((outputs, 1), torch.float32, 0, None)
        tensors = {"weight": StoredTensor((outputs, inputs), E4M3), "weight_scale": scale}
        if self._static:
            tensors["input_scale"] = StoredTensor((), torch.float32, None, None, per_part=True)
        return tensors

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> Float8Inputs:
        scale = tensors["weight_scale"]
        scales = scale if self._by_channel else layer.spread(scale)
        return Float8Inputs(from_floats(tensors["weight"], scales), input_scale(tensors))


class BlockFp8(CodedLinear):
    """A scale for each block of outputs and inputs."""

    def __init__(self, block_outputs: int, block_inputs: int) -> None:
        self._block = (block_outputs, block_inputs)

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        blocks = (-(-outputs // self._block[0]), -(-inputs // self._block[1]))
        return {
            "weight": StoredTensor((outputs, inputs), E4M3),
            "weight_scale_inv": StoredTensor(blocks, torch.float32),
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> Float8Inputs:
        scales = by_blocks(tensors["weight_scale_inv"], tensors["weight"].shape, self._block)
        return Float8Inputs(from_floats(tensors["weight"], scales), None)


def input_scale(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """float32 [1], the static scale of a layer's inputs: the largest of its parts', which have the
    same inputs; None where each token gets its own."""
    scales = tensors.get("input_scale")
    return None if scales is None else scales.float().max().reshape(1)


def by_blocks(scales: Tensor, shape: tuple[int, ...], block: tuple[int, int]) -> Tensor:
    """[N / block, K / block], the last blocks perhaps cut off -> [N, groups] of one size."""
    outputs, inputs = shape
    group = gcd(inputs, block[1])
    by_row = scales.repeat_interleave(block[0], 0)[:outputs]
    return by_row.repeat_interleave(block[1] // group, 1)[:, : inputs // group]
