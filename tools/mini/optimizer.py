"""Muon for the matrices of the layers, AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn


class Muon:
    """Momentum made orthogonal, for all matrices of a shape at once.

    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """

    def __init__(self, parameters: list[nn.Parameter], momentum: float = 0.95) -> None:
        by_shape: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        self._groups = list(by_shape.values())
        self._buffers = [torch.zeros_like(torch.stack([p.data for p in g])) for g in self._groups]
        self._momentum = momentum

    @torch.no_grad()
    def step(self, rate: float, decay: float = 0.0) -> None:
        """One step; the gradients stay."""
        for group, buffer in zip(self._groups, self._buffers, strict=True):
            gradients = torch.stack([p.grad for p in group if p.grad is not None])
            buffer.lerp_(gradients, 1 - self._momentum)
            update = _orthogonal(gradients.lerp(buffer, self._momentum))
            scale = max(1.0, group[0].shape[0] / group[0].shape[1]) ** 0.5
            torch._foreach_mul_(list(group), 1 - rate * decay)
            torch._foreach_add_(list(group), list(update.unbind()), alpha=-rate * scale)


@torch.compile(dynamic=False, disable=not torch.cuda.is_available())
def _orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values near 1, by five Newton-Schulz steps. [N, R, C]."""
    x = matrices.bfloat16()
    if is_tall := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    result: Tensor = (x.mT if is_tall else x).float()
    return result


class Optimizer:
    """Both; ``step`` takes the share of the full rate."""

    def __init__(self, model: nn.Module, muon_rate: float, adam_rate: float) -> None:
        self._model = model
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
        others = [p for name, p in named if p.dim() != 2 or "embed" in name]
        self._muon = Muon(matrices)
        self._adam = torch.optim.AdamW(others, adam_rate, (0.9, 0.95), weight_decay=0.0)
        self._muon_rate, self._adam_rate = muon_rate, adam_rate

    def step(self, share: float) -> None:
        """``share`` of the rates, 0 to 1; forgets the gradients."""
        self._muon.step(self._muon_rate * share, decay=0.1)
        for group in self._adam.param_groups:
            group["lr"] = self._adam_rate * share
        self._adam.step()
        self._model.zero_grad(set_to_none=True)
