"""Experts of ours in a model of transformers, which routes tokens to them by itself.

transformers keeps a layer's experts as ``gate_up_proj`` [E, 2 I, hidden] and ``down_proj``
[E, hidden, I], and gives them tokens, the experts chosen for each, and their weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from jackfield.compute.layers.moe import ExpertsConfig, make_experts
from jackfield.contracts.model import BuildContext

# What transformers says of experts (``use_experts_implementation``), of those that we compute.
_USUAL = {
    "has_gate": True,
    "has_bias": False,
    "has_post_expert_norm": False,
    "is_transposed": False,
    "is_concatenated": True,
}
# Mixtral's names and those of its kin, which transformers renames.
_STORED = re.compile(r"(.*\.)block_sparse_moe(\.experts\.\d+\.)(w[123])(\..*)")
_RENAMED = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_LEAST = 1e-30


def is_usual(layer: Any) -> bool:
    """Whether ``layer`` is a layer's experts with a SiLU gate, and nothing beside it."""
    gate = getattr(type(layer), "_apply_gate", None)
    return (
        getattr(gate, "__module__", None) == "transformers.integrations.moe"
        and all(getattr(layer, name, None) == value for name, value in _USUAL.items())
        and isinstance(layer.act_fn, SiLUActivation | nn.SiLU)
    )


def experts_like(layer: Any, top_k: int, context: BuildContext, prefix: str) -> nn.Module:
    """Empty experts of the same sizes, called as ``layer`` is; a token goes through ``top_k``."""
    count, hidden, intermediate = layer.down_proj.shape
    config = ExpertsConfig(count, top_k, intermediate, renormalize=False)
    experts = make_experts(hidden, config, activation="silu", context=context, prefix=prefix)
    experts.forward = _by_choice(experts.forward, count)  # type: ignore[method-assign]
    return experts


def experts_apart(layer: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights of each of transformers' experts by its name beside the others, as views."""
    for index, (gate_up, down) in enumerate(zip(layer.gate_up_proj, layer.down_proj, strict=True)):
        gate, up = gate_up.chunk(2)
        for name, weight in (("gate_proj", gate), ("up_proj", up), ("down_proj", down)):
            yield f"{index}.{name}.weight", weight


def own_name(name: str) -> str:
    """A checkpoint's name as our experts have it."""
    found = _STORED.fullmatch(name)
    if found is None:
        return name
    before, expert, projection, after = found.groups()
    return f"{before}mlp{expert}{_RENAMED[projection]}{after}"


def _by_choice(mix: Callable[[Tensor, Tensor], Tensor], count: int) -> Callable[..., Tensor]:
    """``mix`` takes logits, of which it makes shares by softmax; this takes the shares."""

    def forward(hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """[T, hidden], int64 [T, top_k], [T, top_k] -> [T, hidden]."""
        shares = top_k_weights.float()
        logits = shares.new_full((len(shares), count), -torch.inf)
        logits.scatter_(1, top_k_index, shares.clamp_min(_LEAST).log())
        mixed = mix(hidden_states, logits).float() * shares.sum(-1, keepdim=True)
        return mixed.to(hidden_states.dtype)

    return forward
