"""Rotary embedding of ours in a model of transformers: one kernel where its code launches ten.

Models rotate by a function of their own module. Whether it does what our kernel does is seen by
what it computes; its name then stands for ours, which leaves what is not on a GPU to theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, Self

from torch import Tensor

from jackfield_models.trial import are_close

_NAME = "apply_rotary_pos_emb"

Turned = tuple[Tensor, Tensor]
Rotate = Callable[[Tensor, Tensor, Tensor, Tensor], Turned]
"""As ``kernels.rotation.rotate``."""


class RotationTrial:
    """While ``model`` is run inside, what its modules' functions give is compared with
    ``rotate``'s."""

    def __init__(self, model: Any, rotate: Rotate) -> None:
        self._rotate = rotate
        self._agree: dict[ModuleType, bool] = {}
        homes = {type(module).__module__ for module in model.modules()}
        modules = [sys.modules[home] for home in sorted(homes)]
        self._theirs = {
            module: _original(getattr(module, _NAME))
            for module in modules
            if hasattr(module, _NAME)
        }

    def __enter__(self) -> Self:
        for module, theirs in self._theirs.items():
            setattr(module, _NAME, self._compare(module, theirs))
        return self

    def __exit__(self, *exception: object) -> None:
        for module, theirs in self._theirs.items():
            setattr(module, _NAME, theirs)

    def use(self) -> None:
        """Puts ``rotate`` into the modules whose functions agree."""
        for module, agrees in self._agree.items():
            if agrees:
                setattr(module, _NAME, _instead_of(self._theirs[module], self._rotate))

    def _compare(self, module: ModuleType, theirs: Callable[..., Turned]) -> Callable[..., Turned]:
        def compared(*given: Any, **named: Any) -> Turned:
            made = theirs(*given, **named)
            agrees = _is_usual(given, named) and all(
                are_close(own, its)
                for own, its in zip(_turned(self._rotate, *given), made, strict=True)
            )
            self._agree[module] = self._agree.get(module, True) and agrees
            return made

        return compared


def _instead_of(theirs: Callable[..., Turned], rotate: Rotate) -> Callable[..., Turned]:
    @wraps(theirs)
    def ours(*given: Any, **named: Any) -> Turned:
        if given and given[0].is_cuda and _is_usual(given, named):
            return _turned(rotate, *given)
        return theirs(*given, **named)

    ours.jackfield_original = theirs  # type: ignore[attr-defined]
    return ours


def _original(function: Callable[..., Turned]) -> Callable[..., Turned]:
    """Another model may have been here before."""
    original: Callable[..., Turned] = getattr(function, "jackfield_original", function)
    return original


def _is_usual(given: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """One batch of q [1, H, T, D], k [1, K, T, D], cos and sin [1, T, R], and nothing else."""
    if len(given) != 4 or named:
        return False
    q, k, cos, sin = given
    return (
        all(x.dim() == 4 and len(x) == 1 and x.stride(-1) == 1 for x in (q, k))
        and all(x.dim() == 3 and len(x) == 1 and x.is_contiguous() for x in (cos, sin))
        and q.shape[2] == k.shape[2] == cos.shape[1]
    )


def _turned(rotate: Rotate, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Turned:
    turned_q, turned_k = rotate(q[0], k[0], cos[0], sin[0])
    return turned_q.transpose(0, 1)[None], turned_k.transpose(0, 1)[None]
