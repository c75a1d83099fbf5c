"""AQLM (arXiv 2401.06118): a group of weights is the sum of an entry of each codebook.

Facts: the aqlm package. ``codes`` [N / out_group, K / in_group, codebooks], int8 or int16, the
entries from 0 on with the sign bit as the highest; ``codebooks`` [codebooks, entries, out_group,
in_group]; ``scales`` [N / out_group, 1, 1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.errors import CheckpointError
from jackfield_quantization.one_method import OneMethod
from jackfield_quantization.options import integer, names, require


class AqlmQuantization(OneMethod):
    """Implements ``QuantizationMethod``."""

    name: ClassVar[str] = "aqlm"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        listed = names(config, "linear_weights_not_to_quantize")
        self._excepted = (*(name.removesuffix(".weight") for name in listed), "lm_head")
        self._method = _AqlmLinear(
            integer(config, "in_group_size", 8),
            integer(config, "out_group_size", 1),
            integer(config, "num_codebooks", 1),
            integer(config, "nbits_per_codebook", 16),
        )


class _AqlmLinear(CodedLinear):
    def __init__(self, in_group: int, out_group: int, num_codebooks: int, bits: int) -> None:
        if not 0 < bits <= 16:
            raise CheckpointError(f"quantization_config: nbits_per_codebook is {bits}")
        self._in_group = in_group
        self._out_group = out_group
        self._codebooks = (num_codebooks, 2**bits)
        self._code_dtype = torch.int8 if bits <= 8 else torch.int16

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        groups = (outputs // self._out_group, inputs // self._in_group)
        entry = (self._out_group, self._in_group)
        return {
            "codes": StoredTensor((*groups, self._codebooks[0]), self._code_dtype),
            "codebooks": StoredTensor((*self._codebooks, *entry), dtype, None, None, per_part=True),
            "scales": StoredTensor((groups[0], 1, 1, 1), dtype, 0, None),
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> AdditiveWeight:
        groups = tuple(outputs // self._out_group for outputs in layer.outputs)
        return AdditiveWeight(tensors["codes"], tensors["codebooks"], tensors["scales"], groups)


@dataclass(frozen=True, slots=True)
class AdditiveWeight:
    """[N, K] numbers; ``codebooks`` [layers, codebooks, entries, out_group, in_group] has those of
    each checkpoint layer, of which ``groups`` groups of outputs are."""

    codes: Tensor
    codebooks: Tensor
    scales: Tensor
    groups: tuple[int, ...]

    def decode(self, dtype: torch.dtype) -> Tensor:
        """The numbers, [N, K]."""
        mask = self.codebooks.shape[2] - 1
        parts = zip(
            torch.split(self.codes, list(self.groups)),
            self.codebooks,
            torch.split(self.scales, list(self.groups)),
            strict=True,
        )
        numbers = []
        for codes, codebooks, scales in parts:
            sums = codebooks[0][codes[..., 0].int() & mask]
            for index in range(1, len(codebooks)):
                sums += codebooks[index][codes[..., index].int() & mask]
            # [N / out_group, K / in_group, out_group, in_group]
            sums *= scales
            numbers.append(sums.transpose(1, 2).reshape(len(codes) * sums.shape[2], -1))
        return torch.cat(numbers).to(dtype)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [T, K] -> x @ weight.T + bias, [T, N] in x's dtype."""
        return F.linear(x, self.decode(x.dtype), bias)
