"""The tensors that a checkpoint has for one layer, brought together from its stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from jackfield.errors import CheckpointError

Named = tuple[str, Tensor]


class Member(NamedTuple):
    """A tensor's layer, and what it is called there."""

    layer: str
    name: str


def by_layer(
    weights: Iterable[Named],
    member: Callable[[str, Tensor], Member | None],
    is_complete: Callable[[Mapping[str, Tensor]], bool],
    convert: Callable[[str, Mapping[str, Tensor]], Iterable[Named]],
) -> Iterator[Named]:
    """``convert(layer, tensors)`` once all of a layer's tensors came, its names below the layer's;
    what is no ``member`` of a layer passes."""
    waiting: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights:
        found = member(name, tensor)
        if found is None:
            yield name, tensor
            continue
        tensors = waiting.setdefault(found.layer, {})
        tensors[found.name] = tensor
        if is_complete(tensors):
            del waiting[found.layer]
            for own, value in convert(found.layer, tensors):
                yield f"{found.layer}.{own}", value
    for layer, tensors in waiting.items():
        raise CheckpointError(
            f"the checkpoint has only {', '.join(sorted(tensors))} of the quantized layer {layer}"
        )
