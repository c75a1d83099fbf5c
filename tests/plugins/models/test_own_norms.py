"""Which modules are replaced by our RMSNorm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from jackfield_models.own_norms import OwnRMSNorm, norm_trial

SIZE = 16


class Norm(nn.Module):
    """As transformers writes them: rounded before the weight is multiplied."""

    def __init__(self, change: Callable[[Tensor], Tensor], eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SIZE), requires_grad=False)
        self.variance_epsilon = eps
        self._change = change

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.variance_epsilon)
        y = self._change(self.weight.float()) * wide.to(x.dtype)
        return (y if gate is None else y * gate).to(x.dtype)


class Model(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = Norm(change), Norm(change)
        self.other = Norm(change, eps=0.5)
        self.layer_norm = nn.LayerNorm(SIZE, bias=False)
        self.product = nn.Linear(SIZE, SIZE, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.product(self.layer_norm(self.other(self.second(self.first(x)))))
        return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("change", [lambda w: w, lambda w: 1 + w], ids=["plain", "one more"])
@torch.inference_mode()
def test_a_norm_is_known_by_what_it_computes(
    change: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    model = Model(change).to(dtype)
    with norm_trial(model) as norms:
        model(torch.randn(5, SIZE, dtype=dtype))
    norms.use()
    own = {name for name, layer in model.named_children() if isinstance(layer, OwnRMSNorm)}
    assert own == {"first", "second", "other"}
    theirs = Norm(change).to(dtype)
    theirs.weight.copy_(model.second.weight)
    x = torch.randn(2, 3, SIZE, dtype=dtype)
    torch.testing.assert_close(model.second(x).double(), theirs(x).double(), rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("change", [lambda w: 2 * w, lambda w: w - 1, torch.tanh])
@torch.inference_mode()
def test_other_arithmetic_stays(change: Callable[[Tensor], Tensor]) -> None:
    model = Model(change)
    with norm_trial(model) as norms:
        model(torch.randn(5, SIZE))
    norms.use()
    assert not any(isinstance(layer, OwnRMSNorm) for layer in model.children())


@torch.inference_mode()
def test_a_norm_that_is_given_more_or_nothing_stays() -> None:
    gated = Norm(lambda w: w)
    model = nn.ModuleDict({"gated": gated, "unused": Norm(lambda w: w, eps=0.1)})
    x = torch.randn(5, SIZE)
    with norm_trial(model) as norms:
        gated(x)
        gated(x, x)
    norms.use()
    assert not any(isinstance(layer, OwnRMSNorm) for layer in model.children())
