"""Mixtures of experts with linear layers, as checkpoints have them and quantization wants them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jackfield.compute.layers.stacked_experts import are_stacked, unstacked


class LinearExperts(nn.Module):
    """In the place of transformers' stacked experts, with their weights: linear layers named
    ``0.gate_proj``, ``0.up_proj``, ``0.down_proj``, ..."""

    def __init__(self, stacked: Any) -> None:
        super().__init__()
        self.act_fn = stacked.act_fn
        for name, weight in unstacked(stacked):
            index, projection, _ = name.split(".")
            if not hasattr(self, index):
                self.add_module(index, nn.Module())
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
            self.get_submodule(index).add_module(projection, linear)
        self._count = len(stacked.down_proj)

    def forward(self, hidden: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        """[T, hidden], int64 [T, top_k], [T, top_k] -> [T, hidden]."""
        mixed = torch.zeros_like(hidden)
        for index in range(self._count):
            tokens, place = torch.where(chosen == index)
            if len(tokens) == 0:
                continue
            expert: Any = self.get_submodule(str(index))
            given = hidden[tokens]
            inner = self.act_fn(expert.gate_proj(given)) * expert.up_proj(given)
            made = expert.down_proj(inner) * shares[tokens, place, None]
            mixed.index_add_(0, tokens, made.to(hidden.dtype))
        return mixed


def unstack_experts(model: nn.Module) -> None:
    """Puts linear layers in the place of all stacked experts of ``model``."""
    for name, layer in list(model.named_modules()):
        if are_stacked(layer):
            model.set_submodule(name, LinearExperts(layer))


def routers(model: nn.Module) -> list[str]:
    """Names of what chooses experts, which is no linear layer of ``model``'s code but one of the
    checkpoint's."""
    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, LinearExperts):
            block, _, own = name.rpartition(".")
            for beside, other in model.get_submodule(block).named_children():
                weight = getattr(other, "weight", None)
                if beside != own and isinstance(weight, Tensor) and weight.dim() == 2:
                    found.append(f"{block}.{beside}")
    return found
