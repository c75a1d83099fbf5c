"""Models and quantization methods. Imports torch.

Kinds: ``jackfield.models`` (the checkpoint's ``architectures``, ``--model-impl``),
``jackfield.quantization`` (the checkpoint's ``quant_method``, ``--quantization``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from jackfield.contracts.attention import (
    AttentionBackend,
    AttentionBatch,
    AttentionSpec,
    KVLayer,
    Selection,
)


@dataclass(frozen=True, slots=True)
class TensorParallelGroup:
    """This process's place among the workers that share each layer."""

    rank: int = 0
    size: int = 1

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over the group; x itself for a group of one."""
        if self.size > 1:
            torch.distributed.all_reduce(x)
        return x

    def all_gather_last(self, x: Tensor) -> Tensor:
        """The shards of the last dimension, joined in rank order."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts, dim=-1)


class LinearMethod(Protocol):
    """How one linear layer stores its weight and multiplies by it.

    ``layer`` is an ``nn.Module`` that has ``in_features`` and ``out_features`` (of this shard).

    Optional: ``apply_gated(layer, x, bias)`` does what ``apply`` and ``compute.ops.silu_and_mul``
    after it do, in one pass; a gated block calls it where the method has it, or, before that,
    ``apply_gated_for(layer, x, bias, reader)``, which may give the result in the form that
    ``reader``, the layer that multiplies it, takes. ``apply_add(layer, x, bias, residual, norm,
    reader)`` does what ``apply``, the residual's addition (in place) and the norm do, in such a
    form too; or it returns None, and has done nothing. Forms are ``PassedRows``
    (``compute.kernels.scaled_rows``): what is yet to be divided by its root mean square, or is
    rounded to E4M3. The ``apply_gated`` and ``apply_scaled(layer, x, bias)`` of the reader's method
    take what was made for it.
    """

    def create_weights(self, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """Registers the parameters under the names the checkpoint uses (``weight``, ...)."""
        ...

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Repacks once every shard is in place; called once."""
        ...

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
        """[T, in_features] -> [T, out_features], in x's dtype."""
        ...


class EmbeddingMethod(LinearMethod, Protocol):
    """How an embedding stores its vectors, [tokens, features]: as the weight of a linear layer
    with ``in_features`` features and ``out_features`` tokens, so that a head may be tied to it."""

    def embed(self, layer: nn.Module, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """int64 [T] -> [T, in_features]."""
        ...

    def tie(self, head: nn.Module, layer: nn.Module) -> None:
        """Gives a head what ``apply`` multiplies by; called once, after the embedding's
        ``process_weights_after_loading``."""
        ...


class QuantizationMethod(Protocol):
    """A quantization method; made once per worker as ``cls(config)`` from the checkpoint's
    ``quantization_config`` (empty for online methods).

    Optional: ``translate`` (``TranslatesTensors``), where a tensor of the checkpoint is not one
    parameter of one layer; ``embedding_method`` (``QuantizesEmbeddings``).
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def __init__(self, config: Mapping[str, object]) -> None: ...

    def linear_method(self, prefix: str) -> LinearMethod | None:
        """The method for the layer at ``prefix`` (``model.layers.0.mlp.gate_up_proj``); None
        leaves the layer unquantized."""
        ...


@runtime_checkable
class TranslatesTensors(Protocol):
    """What a quantization method has whose checkpoints say in one tensor what belongs to many
    layers, or in many what is one parameter."""

    def translate(self, weights: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
        """The checkpoint's (name, tensor) pairs, in the files' order, as pairs for the parameters
        that ``create_weights`` registered; what it does not know it passes on. Called once a
        load. Raises ``CheckpointError`` where a tensor that it needs never came."""
        ...


@runtime_checkable
class QuantizesEmbeddings(Protocol):
    """What a quantization method has whose checkpoints quantize the embedding too."""

    def embedding_method(self, prefix: str) -> EmbeddingMethod | None:
        """The method for the embedding at ``prefix`` (``model.embed_tokens``); None leaves it
        plain."""
        ...


def _anywhere(layer: int) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a model is built with. ``attention`` receives one spec a layer and owns the KV.

    A model makes layer i inside ``with placing(i)``, the layers in order, if it wants to be served
    where it does not fit on the device: tensors that ``torch.empty`` makes there may be in the
    host's memory.
    """

    dtype: torch.dtype
    device: torch.device
    group: TensorParallelGroup
    attention_backend: AttentionBackend
    max_model_len: int
    max_num_batched_tokens: int
    quantization: QuantizationMethod | None = None
    trust_remote_code: bool = False
    directory: str = ""
    code_revision: str | None = None
    """Of the code that ``trust_remote_code`` allows, where it is in a repository of its own."""
    placing: Callable[[int], AbstractContextManager[object]] = _anywhere


class Model(Protocol):
    """A causal language model over paged KV; an ``nn.Module`` made as ``cls(config, context)``.

    ``config`` is the checkpoint's ``config.json`` as a mapping. Parameters are created empty on
    ``context.device`` by the constructor; no value is computed before ``load_weights``.
    ``forward`` must not wait for the device, and must be capturable in a CUDA graph where the
    attention backend is. Optional: ``forward_selected`` (``SelectsTokens``), where the last layer
    can leave out what nobody wants.
    """

    api_version: ClassVar[int]
    attention_specs: tuple[AttentionSpec, ...]
    """One a layer that has KV, in the order of ``KVLayer``s given to ``bind_kv``."""

    def __init__(self, config: Mapping[str, object], context: BuildContext) -> None: ...

    def weight_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name and full shape of every tensor that ``load_weights`` needs."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copies each tensor of the checkpoint to its place, once; ends by calling
        ``process_weights_after_loading`` on every layer. Raises ``CheckpointError`` naming
        tensors that are missing or have another shape; unknown ones are an error too, unless
        the model lists them as ignorable."""
        ...

    def bind_kv(self, layers: tuple[KVLayer, ...]) -> None:
        """Hands the KV tensors to the attention layers; called again only with new tensors."""
        ...

    def forward(self, ids: Tensor, positions: Tensor, attention: AttentionBatch) -> Tensor:
        """ids, positions int64 [T] -> hidden states after the final norm, [T, hidden]."""
        ...

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden] -> [N, vocabulary] in the model's dtype, final soft cap applied."""
        ...


@runtime_checkable
class SelectsTokens(Protocol):
    """What a model has whose last layer computes the tokens that are wanted, and no others."""

    def forward_selected(
        self, ids: Tensor, positions: Tensor, attention: AttentionBatch, selection: Selection
    ) -> Tensor:
        """ids, positions int64 [T] -> the rows ``selection.index`` of what ``forward`` gives,
        [N, hidden]. Keys and values of all T tokens are written, and every layer is called as a
        module, so that its hooks run."""
        ...
