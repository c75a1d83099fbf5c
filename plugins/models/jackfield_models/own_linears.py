"""Linear layers of ours in a model of transformers: quantized ones, or faster ones.

Another layer may stand where transformers' code has a ``torch.nn.Linear`` of which it does nothing
but call it. Experts, and heads that may be tied to the embedding, stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from jackfield.compute.layers.linear import ColumnParallelLinear
from jackfield.compute.weights import find_slots, load_weights
from jackfield.contracts.model import BuildContext, QuantizationMethod
from jackfield.errors import ConfigError


class OwnLinear(ColumnParallelLinear):
    """In the place of an ``nn.Linear``: [..., inputs] -> [..., outputs]."""

    def forward(self, x: Tensor) -> Tensor:
        """One multiplication, whatever the leading dimensions are."""
        return super().forward(x.flatten(0, -2)).view(*x.shape[:-1], self.out_features)


class _WatchedLinear(nn.Linear):
    """Knows whether anybody but itself has read its weight."""

    is_read = False

    def forward(self, x: Tensor) -> Tensor:
        weight = self._parameters["weight"]
        assert weight is not None
        return F.linear(x, weight, self._parameters["bias"])

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            self.__dict__["is_read"] = True
        return super().__getattr__(name)


class WatchedLinears:
    """While a model is run inside, its linear layers are watched; ``names`` are then those that
    another layer may replace."""

    names: tuple[str, ...]

    def __init__(self, model: Any) -> None:
        head = model.get_output_embeddings()
        self._linears = {
            name: module
            for name, module in model.named_modules()
            if type(module) is nn.Linear and module is not head
        }

    def __enter__(self) -> WatchedLinears:
        for linear in self._linears.values():
            linear.__class__ = _WatchedLinear
        return self

    def __exit__(self, *exception: object) -> None:
        self.names = tuple(n for n, linear in self._linears.items() if not linear.is_read)
        for linear in self._linears.values():
            linear.__class__ = nn.Linear


def quantize_linears(
    model: Any, names: Sequence[str], method: QuantizationMethod, context: BuildContext
) -> dict[str, OwnLinear]:
    """Empty layers in the place of those of ``names`` that the quantization means.

    Raises ``ConfigError`` where it means experts, or nothing that the model has.
    """
    owner = type(model).__name__
    for name, _ in model.named_modules():
        if name.endswith(".experts") and method.linear_method(f"{name}.0.down_proj") is not None:
            raise ConfigError(
                f"quantization {method.name!r} means the experts of {owner}, which transformers "
                "runs; only its other layers can be quantized"
            )
    meant = [name for name in names if method.linear_method(name) is not None]
    if not meant:
        raise ConfigError(f"quantization {method.name!r} means no layer of {owner}")
    return {name: _replaced(model, name, context) for name in meant}


def load_linears(model: Any, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Fills our layers of ``model``; gives the tensors that are not theirs, by name.

    Raises ``CheckpointError`` for a tensor that is missing, twice there, or of another shape.
    """
    slots = find_slots(model)
    others: dict[str, Tensor] = {}

    def own() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights:
            if name in slots:
                yield name, tensor
            else:
                others[name] = tensor

    load_weights(model, own())
    return others


def without(model_class: Any, layers: Iterable[str]) -> Any:
    """``model_class`` with nothing to be loaded at ``layers``."""

    def __init__(self: Any, *given: Any, **named: Any) -> None:
        model_class.__init__(self, *given, **named)
        put(self, {name: nn.Identity() for name in layers})

    own = {"__init__": __init__, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), own)


def put(model: Any, layers: Mapping[str, nn.Module]) -> None:
    """``layers`` into ``model``, by name."""
    for name, layer in layers.items():
        model.set_submodule(name, layer)


def take_over_linears(model: Any, names: Iterable[str], context: BuildContext) -> None:
    """Our layers in the place of ``names``, with the weights that these have."""
    for name in names:
        linear = model.get_submodule(name)
        layer = _replaced(model, name, context)
        slots = dict(layer.slots(name))
        for own, tensor in linear.named_parameters():
            slots[f"{name}.{own}"].place(tensor.detach())
        layer.finish_loading()


def _replaced(model: Any, name: str, context: BuildContext) -> OwnLinear:
    linear = model.get_submodule(name)
    layer = OwnLinear(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        context=context,
        prefix=name,
    )
    model.set_submodule(name, layer)
    return layer
