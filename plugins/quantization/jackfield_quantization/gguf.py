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
from jackfield.compute.layers.coded_linear import (
    CodedLinear,
    LinearParts,
    Multiplies,
    Plain,
    Stacked,
    StoredTensor,
    for_device,
)
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.layers.tiled_weight import TiledWeight
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
        # Phi 3's checkpoints themselves have a fused layer.
        names = (prefix,) if prefix in self._types else checkpoint_names(prefix)
        types = self.types_of(names)
        return GgufLinear(types) if any(types) else None

    def embedding_method(self, prefix: str) -> EmbeddingMethod | None:
        """Of the vectors too: they are the largest tensor of a small model."""
        types = self.types_of((prefix,))
        return GgufEmbedding(types) if any(types) else None

    def types_of(self, layers: Sequence[str]) -> tuple[str | None, ...]:
        """The type of each of these layers of the checkpoint; None for plain ones."""
        types = (self._types.get(layer) for layer in layers)
        return tuple(None if kind is None else str(kind) for kind in types)


class GgufLinear(CodedLinear):
    """A layer of one or several parts; None is a plain part. One type is that of all parts."""

    def __init__(self, types: tuple[str | None, ...]) -> None:
        self._types = types

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        """Of a layer that is not fused."""
        return {_parameter(0): _stored(self._types[0], outputs, inputs, dtype)}

    def create_weights(self, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """Registers each part's rows of blocks, as the file has them."""
        layer.__dict__["dtype"] = dtype
        parts = LinearParts.of(layer)
        types = self._of_parts(parts)
        for number, (kind, outputs) in enumerate(zip(types, parts.outputs, strict=True)):
            stored = _stored(kind, outputs, parts.num_inputs, dtype)
            empty = torch.empty(stored.shape, dtype=stored.dtype, device=device)
            parameter = nn.Parameter(empty, requires_grad=False)
            if len(types) > 1:
                parameter.part = number  # type: ignore[attr-defined]
                parameter.stored_name = _parameter(0)  # type: ignore[attr-defined]
            layer.register_parameter(_parameter(number), parameter)

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> Multiplies:
        types = self._of_parts(layer)
        weights: list[Multiplies] = []
        for kind, numbers in groupby(range(len(types)), types.__getitem__):
            parts = [tensors[_parameter(number)] for number in numbers]
            if kind is None:
                weights += map(Plain, parts)
                continue
            pieces = [encode(kind, part, _TYPES[kind].block_bytes) for part in parts]
            weights.append(CodedWeight.join(pieces, sum(map(len, parts))))
        return weights[0] if len(weights) == 1 else Stacked(tuple(weights))

    def _of_parts(self, layer: LinearParts) -> tuple[str | None, ...]:
        return self._types * len(layer.outputs) if len(self._types) == 1 else self._types


class GgufEmbedding(GgufLinear):
    """Implements ``EmbeddingMethod``: codes of which a few rows are looked up."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """On a GPU as they are: its kernels have other orders, without rows."""
        stored = layer.get_parameter(_parameter(0)).data
        coded = self.encode(LinearParts.of(layer), {_parameter(0): stored})
        layer.__dict__["coded"] = (
            coded if stored.is_cuda else for_device(coded, cast(torch.dtype, layer.dtype))
        )
        delattr(layer, _parameter(0))

    def embed(self, layer: nn.Module, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """int64 [T] -> [T, in_features]."""
        return cast("CodedWeight | TiledWeight", layer.__dict__["coded"]).look_up(ids, dtype)

    def tie(self, head: nn.Module, layer: nn.Module) -> None:
        """The head has the same codes, in the order of the device's kernels."""
        head.__dict__["coded"] = for_device(layer.__dict__["coded"], _dtype(layer))


def _dtype(layer: nn.Module) -> torch.dtype:
    """Of its activations."""
    return cast(torch.dtype, layer.dtype)


def _parameter(number: int) -> str:
    return "weight" if number == 0 else f"weight_{number}"


def _stored(kind: str | None, outputs: int, inputs: int, dtype: torch.dtype) -> StoredTensor:
    if kind is None:
        return StoredTensor((outputs, inputs), dtype)
    if kind not in _TYPES:
        raise CheckpointError(f"quantization_config: the tensor type {kind!r} is unknown")
    known = _TYPES[kind]
    if inputs % known.block_size:
        raise CheckpointError(
            f"{inputs} inputs of a layer are no whole blocks of {known.block_size}, which {kind} "
            "has; choose a smaller --tensor-parallel-size"
        )
    row_bytes = inputs // known.block_size * known.block_bytes
    return StoredTensor((outputs, row_bytes), torch.uint8)
