"""Experts of ours in a model of transformers, which routes tokens to them by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from jackfield.compute.layers.moe import ExpertsConfig, make_experts
from jackfield.contracts.model import BuildContext

_LEAST = 1e-30


def experts_like(layer: Any, top_k: int, context: BuildContext, prefix: str) -> nn.Module:
    """Empty experts of the same sizes, called as ``layer`` is; a token goes through ``top_k``."""
    count, hidden, intermediate = layer.down_proj.shape
    config = ExpertsConfig(count, top_k, intermediate, renormalize=False)
    experts = make_experts(hidden, config, activation="silu", context=context, prefix=prefix)
    experts.forward = _by_choice(experts.forward, count)  # type: ignore[method-assign]
    return experts


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
