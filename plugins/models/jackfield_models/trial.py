"""Whether layers of a model of transformers compute what layers of ours do: it is tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

_TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Of the largest number: transformers rounds more often."""


class Trial:
    """While ``model`` is run inside, layers are compared with what could replace them.

    ``kind_of`` a layer is None if nothing could. Layers of one class, kind and numbers compute the
    same by their own weights: one of them is tried. Each of ``makers`` makes a replacement.
    """

    def __init__(
        self,
        model: Any,
        kind_of: Callable[[Any], object],
        makers: Sequence[Callable[[Any], nn.Module]],
    ) -> None:
        self._model, self._makers = model, makers
        self._kinds: dict[object, list[str]] = {}
        for name, layer in model.named_modules():
            if (kind := kind_of(layer)) is not None:
                alike = (type(layer), kind, *_numbers(layer))
                self._kinds.setdefault(alike, []).append(name)
        self._agree: dict[object, list[Callable[[Any], nn.Module]]] = {}

    def __enter__(self) -> Self:
        self._hooks = [
            self._model.get_submodule(names[0]).register_forward_hook(self._see(kind))
            for kind, names in self._kinds.items()
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def use(self) -> None:
        """Replaces all layers of each kind that a replacement agreed with."""
        for kind, makers in self._agree.items():
            for name in self._kinds[kind] if makers else ():
                self._model.set_submodule(name, makers[0](self._model.get_submodule(name)))

    def _see(self, kind: object) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...], made: Any) -> None:
            makers = self._agree.get(kind, self._makers)
            alone = len(given) == 1
            self._agree[kind] = [
                make for make in makers if alone and are_close(make(layer)(given[0]), made)
            ]

        return hook


def _numbers(layer: nn.Module) -> list[tuple[str, object]]:
    return [(name, value) for name, value in vars(layer).items() if isinstance(value, (int, float))]


def are_close(own: Tensor, its: Tensor) -> bool:
    """Whether they differ by no more than rounding."""
    if (own.shape, own.dtype) != (its.shape, its.dtype) or own.dtype not in _TOLERANCE:
        return False
    far = (own.float() - its.float()).abs().max()
    return bool(far <= _TOLERANCE[own.dtype] * its.abs().max())
