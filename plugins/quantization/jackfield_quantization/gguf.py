"""GGUF: the types of llama.cpp's files, a type for each tensor.

The configuration has ``tensor_types``, layer names to types. A layer may be fused of layers of
several types: files of mixed quality have values better than queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from jackfield.checkpoint import TENSOR_TYPES
from jackfield.compute.layers.coded_linear import LinearParts, Multiplies, Plain, Stacked
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import EmbeddingMethod, LinearMethod
from jackfield.errors import CheckpointError
from jackfield_quantization.gguf_blocks import encode
from jackfield_quantization.layer_names import checkpoint_names
from jackfield_quantization.options import section

_TYPES = {kind.name: kind for kind in TENSOR_TYPES.values()}


class GgufQuantization:
    """Implements ``QuantizationMethod`` and ``QuantizesEmbeddings``."""

    name: ClassVar[str] = "gguf"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        self._types = section(config, "tensor_types")

    def linear_method(self, prefix: str) -> LinearMethod | None:
        return self._method(checkpoint_names(prefix))

    def embedding_method(self, prefix: str) -> EmbeddingMethod | None:
        """Of the vectors too: they are the largest tensor of a small model."""
        return self._method((prefix,))

    def _method(self, layers: Sequence[str]) -> GgufLinear | None:
        types = tuple(self._types.get(layer) for layer in layers)
        if not any(types):
            return None
        return GgufLinear(tuple(None if kind is None else str(kind) for kind in types))


class GgufLinear:
    """Implements ``EmbeddingMethod`` for a layer of one or several parts; None is a plain part.
    One type is that of all parts."""

    def __init__(self, types: tuple[str | None, ...]) -> None:
        self._types = types

    def create_weights(self, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """Registers each part's rows of blocks, as the file has them."""
        parts = LinearParts.of(layer)
        types = self._of_parts(len(parts.outputs))
        for number, (kind, outputs) in enumerate(zip(types, parts.outputs, strict=True)):
            shape, stored = (outputs, parts.num_inputs), dtype
            if kind is not None:
                shape, stored = (outputs, _row_bytes(kind, parts.num_inputs)), torch.uint8
            empty = torch.empty(shape, dtype=stored, device=device)
            parameter = nn.Parameter(empty, requires_grad=False)
            if len(types) > 1:
                parameter.part = number  # type: ignore[attr-defined]
                parameter.stored_name = "weight"  # type: ignore[attr-defined]
            layer.register_parameter(_parameter(number), parameter)

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Turns blocks into codes, and lets go of them part by part."""
        weights: list[Multiplies] = []
        types = self._of_parts(len(LinearParts.of(layer).outputs))
        for kind, numbers in groupby(range(len(types)), types.__getitem__):
            if kind is None:
                weights += [Plain(_take(layer, number)) for number in numbers]
                continue
            block_bytes = _TYPES[kind].block_bytes
            pieces = [encode(kind, _take(layer, number), block_bytes) for number in numbers]
            weights.append(CodedWeight.join(pieces, sum(piece.shape[0] for piece in pieces)))
        # Not a tensor, not a module: torch's own setter has no part in it.
        layer.__dict__["coded"] = weights[0] if len(weights) == 1 else Stacked(tuple(weights))

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
        """[T, in_features] -> [T, out_features], in x's dtype."""
        return cast(Multiplies, layer.__dict__["coded"]).multiply(x, bias)

    def embed(self, layer: nn.Module, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """int64 [T] -> [T, in_features]."""
        return cast(CodedWeight, layer.__dict__["coded"]).select(ids).decode(dtype)

    def _of_parts(self, count: int) -> tuple[str | None, ...]:
        return self._types * count if len(self._types) == 1 else self._types


def _parameter(number: int) -> str:
    return "weight" if number == 0 else f"weight_{number}"


def _take(layer: nn.Module, number: int) -> Tensor:
    name = _parameter(number)
    weight = layer.get_parameter(name).data
    delattr(layer, name)
    return weight


def _row_bytes(kind: str, inputs: int) -> int:
    if kind not in _TYPES:
        raise CheckpointError(f"quantization_config: the tensor type {kind!r} is unknown")
    known = _TYPES[kind]
    if inputs % known.block_size:
        raise CheckpointError(
            f"{inputs} inputs of a layer are no whole blocks of {known.block_size}, which {kind} "
            "has; choose a smaller --tensor-parallel-size"
        )
    return inputs // known.block_size * known.block_bytes
