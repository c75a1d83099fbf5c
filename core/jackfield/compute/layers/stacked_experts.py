"""A layer's experts as transformers keeps them: ``gate_up_proj`` [E, 2 I, hidden] and ``down_proj``
[E, hidden, I]; they are given tokens, the experts chosen for each, and their weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

# What transformers says of them (``use_experts_implementation``): a gate first and then what it
# multiplies, and nothing else.
_USUAL = {"has_gate": True, "has_bias": False, "is_transposed": False, "is_concatenated": True}
_NAMES = ("gate_proj", "up_proj", "down_proj")


def are_stacked(layer: Any) -> bool:
    """Whether ``layer`` is such experts, with a SiLU gate."""
    gate = getattr(type(layer), "_apply_gate", None)
    return (
        getattr(gate, "__module__", None) == "transformers.integrations.moe"
        and all(getattr(layer, name, None) == value for name, value in _USUAL.items())
        and not getattr(layer, "has_post_expert_norm", False)  # not known to 5.17
        and type(layer.act_fn).__name__ in ("SiLUActivation", "SiLU")
    )


def unstacked(layer: Any) -> Iterator[tuple[str, Tensor]]:
    """Each expert's weights as views, by their names beside the others: ``0.gate_proj.weight``."""
    for index, (gate_up, down) in enumerate(zip(layer.gate_up_proj, layer.down_proj, strict=True)):
        for name, weight in zip(_NAMES, (*gate_up.chunk(2), down), strict=True):
            yield f"{index}.{name}.weight", weight
