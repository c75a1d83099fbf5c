"""GPTQ (arXiv 2210.17323): integers of 2, 3, 4 or 8 bits, in groups, perhaps sorted by activation.

Facts: the layout of GPTQModel and AutoGPTQ. ``qweight`` int32 [K * bits / 32, N] holds the inputs'
codes of one output from the lowest bits on; ``qzeros`` int32 [groups, N * bits / 32], one less than
the zero point in the format "gptq", the zero point itself in "gptq_v2"; ``scales`` [groups, N];
``g_idx`` int32 [K], the group of each input. ``dynamic`` has rules for layers by pattern: "-:"
leaves a layer plain, "+:" or nothing replaces values. The formats "marlin" and "marlin_24" are of
an order of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, Ordered, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield.errors import CheckpointError
from jackfield_quantization.integer_weight import integer_weight
from jackfield_quantization.layer_names import checkpoint_names, compiled, is_listed, is_router
from jackfield_quantization.marlin import Marlin24Linear, MarlinLinear
from jackfield_quantization.number_formats import unpack
from jackfield_quantization.options import Config, flag, integer, names, require, section

_BITS = (2, 3, 4, 8)


class GptqQuantization:
    """Implements ``QuantizationMethod``."""

    name: ClassVar[str] = "gptq"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        self._config = config
        self._excepted = names(config, "modules_to_not_convert")
        self._rules = section(config, "dynamic")
        _method(config)  # what is wrong is told at once

    def linear_method(self, prefix: str) -> LinearMethod | None:
        if is_listed(prefix, self._excepted) or is_router(prefix):
            return None
        if prefix.rpartition(".")[2] == "lm_head" and not flag(self._config, "lm_head", False):
            return None
        for pattern, values in self._rules.items():
            sign, rule = (pattern[:1], pattern[2:]) if pattern[1:2] == ":" else ("+", pattern)
            if any(compiled(rule).match(name) for name in checkpoint_names(prefix)):
                own = values if isinstance(values, Mapping) else {}
                return None if sign == "-" else _method({**self._config, **own})
        return _method(self._config)


class GptqMarlinQuantization(GptqQuantization):
    """GPTQ under the name of a kernel that other engines have for it."""

    name: ClassVar[str] = "gptq_marlin"


class MarlinQuantization(GptqQuantization):
    """GPTQ whose codes are in the order of the Marlin kernel."""

    name: ClassVar[str] = "marlin"

    def __init__(self, config: Mapping[str, object]) -> None:
        super().__init__(_in_format("marlin", config))


class Marlin24Quantization(GptqQuantization):
    """GPTQ with two of four weights left out, in the order of the sparse Marlin kernel."""

    name: ClassVar[str] = "gptq_marlin_24"

    def __init__(self, config: Mapping[str, object]) -> None:
        super().__init__(_in_format("marlin_24", config))


def _in_format(name: str, config: Config) -> Config:
    if not config or config.get("quant_method") == "gptq":
        return config
    return {"bits": 4, **config, "checkpoint_format": name}


def _method(config: Config) -> LinearMethod:
    version = config.get("checkpoint_format", "gptq")
    if version == "marlin" or flag(config, "is_marlin_format", False):
        return MarlinLinear(config)
    if version == "marlin_24":
        return Marlin24Linear(integer(config, "bits", 4), integer(config, "group_size", -1))
    return GptqLinear(config)


class GptqLinear(CodedLinear):
    """Integers along the inputs; ``has_order``: the checkpoint says the group of each input."""

    def __init__(self, config: Config, *, has_order: bool = True) -> None:
        self._has_order = has_order
        self._bits = integer(config, "bits")
        self._group = integer(config, "group_size", -1)
        if self._bits not in _BITS:
            raise CheckpointError(f"quantization_config: bits {self._bits} is none of {_BITS}")
        version = config.get("checkpoint_format", "gptq")
        if version not in ("gptq", "gptq_v2"):
            raise CheckpointError(f"quantization_config: checkpoint_format {version!r} is unknown")
        self._less = 1 if version == "gptq" else 0

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        groups = 1 if self._group < 0 else -(-inputs // self._group)
        zeros = (groups, outputs * self._bits // 32)
        along_inputs = 0 if groups > 1 else None
        tensors = {
            "qweight": StoredTensor((inputs * self._bits // 32, outputs), torch.int32, 1, 0),
            "qzeros": StoredTensor(zeros, torch.int32, 1, along_inputs),
            "scales": StoredTensor((groups, outputs), torch.float32, 1, along_inputs),
        }
        if self._has_order:
            tensors["g_idx"] = StoredTensor((inputs,), torch.int32, None, 0, per_part=True)
        return tensors

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight | Ordered:
        order = self._order(tensors["g_idx"]) if self._has_order else None
        codes = unpack(tensors["qweight"], self._bits, 0).T
        zeros = unpack(tensors["qzeros"], self._bits, 1).T.float() + self._less
        weight = integer_weight(
            codes if order is None else codes[:, order], tensors["scales"].T, zeros, self._bits
        )
        return weight if order is None else Ordered(weight, order)

    def _order(self, groups: Tensor) -> Tensor | None:
        if not bool((groups == groups[:1]).all()):
            raise CheckpointError("GPTQ layers that are fused here have inputs in different orders")
        first = groups[0]
        if bool((first[1:] >= first[:-1]).all()):
            return None
        return torch.argsort(first, stable=True)
