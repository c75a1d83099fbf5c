"""Layers of ours in a model of transformers: quantized ones, or faster ones.

Another layer may stand where transformers' code has a ``torch.nn.Linear`` of which it does nothing
but call it, and where it has stacked experts (``own_experts``). A head that is tied to the
embedding stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jackfield.checkpoint.renamed import loaded_name
from jackfield.compute.layers.embedding import VocabParallelEmbedding
from jackfield.compute.layers.linear import ColumnParallelLinear
from jackfield.compute.layers.stacked_experts import are_stacked, unstacked
from jackfield.compute.weights import find_slots, load_weights
from jackfield.contracts.model import BuildContext, QuantizesEmbeddings
from jackfield.errors import ConfigError
from jackfield_models.own_experts import experts_like


class OwnLinear(ColumnParallelLinear):
    """In the place of an ``nn.Linear``: [..., inputs] -> [..., outputs]."""

    def forward(self, x: Tensor) -> Tensor:
        """One multiplication, whatever the leading dimensions are."""
        return super().forward(x.flatten(0, -2)).view(*x.shape[:-1], self.out_features)


@dataclass(frozen=True, slots=True)
class Replaceable:
    """What another layer may replace: linear layers by name; experts by name, and how many of
    them a token goes through."""

    linears: list[str] = field(default_factory=list)
    experts: dict[str, int] = field(default_factory=dict)


class Watch:
    """While a model is run inside, its layers are watched; then ``found`` is complete."""

    def __init__(self, model: Any) -> None:
        self.found = Replaceable()
        is_tied = getattr(model.config, "tie_word_embeddings", True)
        head = model.get_output_embeddings() if is_tied else None
        layers = dict(model.named_modules())
        self._linears = {
            name: layer
            for name, layer in layers.items()
            if type(layer) is nn.Linear and layer is not head
        }
        self._experts = {name: layer for name, layer in layers.items() if are_stacked(layer)}

    def __enter__(self) -> Replaceable:
        for linear in self._linears.values():
            linear.__class__ = _WatchedLinear
        self._hooks = [
            layer.register_forward_pre_hook(self._see(name))
            for name, layer in self._experts.items()
        ]
        return self.found

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for name, linear in self._linears.items():
            if not linear.__dict__.pop("is_read", False):
                self.found.linears.append(name)
            linear.__class__ = nn.Linear

    def _see(self, name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            if len(given) == 3 and given[0].dim() == 2:
                self.found.experts[name] = given[1].shape[-1]

        return hook


class _WatchedLinear(nn.Linear):
    """Knows whether anybody but itself has read its weight."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self._parameters["weight"]
        assert weight is not None
        return F.linear(x, weight, self._parameters["bias"])

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            self.__dict__["is_read"] = True
        return super().__getattr__(name)


def quantize(model: Any, found: Replaceable, context: BuildContext) -> dict[str, nn.Module]:
    """Empty layers in the place of those that the quantization means, by name; none without one.

    Raises ``ConfigError`` where it means other experts, or nothing that the model has.
    """
    method = context.quantization
    if method is None:
        return {}
    owner = type(model).__name__
    experts = {
        name
        for name, _ in model.named_modules()
        if name.endswith(".experts") and method.linear_method(f"{name}.0.down_proj") is not None
    }
    if not experts <= found.experts.keys():
        raise ConfigError(
            f"quantization {method.name!r} means the experts of {owner}, which are not of the kind "
            "that is quantized here"
        )
    linears = [name for name in found.linears if method.linear_method(name) is not None]
    if not linears and not experts:
        raise ConfigError(f"quantization {method.name!r} means no layer of {owner}")
    layers: dict[str, nn.Module] = {
        name: _linear_like(model.get_submodule(name), context, name) for name in linears
    }
    for name in experts:
        layers[name] = experts_like(model.get_submodule(name), found.experts[name], context, name)
    put(model, layers)
    return layers


def load_own(
    model: Any, weights: Iterable[tuple[str, Tensor]], context: BuildContext
) -> dict[str, Tensor]:
    """Fills our layers of ``model``; gives the tensors that are not theirs, by name.

    Raises ``CheckpointError`` for a tensor of theirs that is missing, unknown, twice there, or of
    another shape.
    """
    ours = {name.rpartition(".")[0] for name in find_slots(model)}
    others: dict[str, Tensor] = {}

    def own() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights:
            own_name = loaded_name(name)
            owner, _, _ = own_name.rpartition(".")
            if owner in ours:
                yield own_name, tensor
            else:
                others[name] = tensor

    load_weights(model, own())
    _decode_embedding(model, others, context)
    return others


def _decode_embedding(model: Any, tensors: dict[str, Tensor], context: BuildContext) -> None:
    """Codes of the embedding, as GGUF files have them, become numbers: transformers looks up."""
    embedding = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embedding)
    method, stored = context.quantization, f"{name}.weight"
    if not isinstance(method, QuantizesEmbeddings) or method.embedding_method(name) is None:
        return
    coded = VocabParallelEmbedding(*embedding.weight.shape, context=context, prefix=name)
    ((_, slot),) = coded.slots(name)
    slot.place(tensors[stored])
    coded.finish_loading()
    tensors[stored] = coded(torch.arange(coded.vocab_size, device=context.device))


class _TakenOut(nn.Module):
    """Where nothing is to be loaded. Models' initialization may write to what it has."""

    weight = Tensor()
    bias = None


def without(model_class: Any, layers: Iterable[str]) -> Any:
    """``model_class`` with nothing to be loaded at ``layers``."""

    def __init__(self: Any, *given: Any, **named: Any) -> None:
        model_class.__init__(self, *given, **named)
        put(self, {name: _TakenOut() for name in layers})

    own = {"__init__": __init__, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), own)


def put(model: Any, layers: Mapping[str, nn.Module]) -> None:
    """``layers`` into ``model``, by name."""
    for name, layer in layers.items():
        model.set_submodule(name, layer)


def take_over(model: Any, found: Replaceable, context: BuildContext) -> None:
    """Our layers in the place of all that may be replaced, with the weights that are there."""
    for name in found.linears:
        linear = model.get_submodule(name)
        _replace(model, name, _linear_like(linear, context, name), linear.named_parameters())
    for name, top_k in found.experts.items():
        stacked = model.get_submodule(name)
        _replace(model, name, experts_like(stacked, top_k, context, name), unstacked(stacked))


def _replace(
    model: Any, name: str, layer: nn.Module, weights: Iterable[tuple[str, Tensor]]
) -> None:
    """``layer`` at ``name``; ``weights`` by their names below that."""
    own = name.rpartition(".")[2]
    alone = nn.ModuleDict({own: layer})
    load_weights(alone, ((f"{own}.{below}", tensor.detach()) for below, tensor in weights))
    model.set_submodule(name, layer)


def _linear_like(linear: nn.Linear, context: BuildContext, prefix: str) -> OwnLinear:
    has_bias = linear.bias is not None
    return OwnLinear(
        linear.in_features, linear.out_features, bias=has_bias, context=context, prefix=prefix
    )
