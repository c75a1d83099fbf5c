"""Which gated blocks are replaced by ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.paged_steps import context
from torch import Tensor, nn

from jackfield.compute.layers import unquantized
from jackfield_models.own_blocks import OwnBlock, block_trial
from jackfield_models.own_layers import Replaceable, take_over

Gate = Callable[[Tensor, Tensor], Tensor]
HIDDEN, INNER = 16, 24


class Block(nn.Module):
    def __init__(self, gate: Gate, bias: bool) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(HIDDEN, INNER, bias=bias) for _ in range(2))
        self.down_proj = nn.Linear(INNER, HIDDEN, bias=bias)
        self.act_fn = nn.SiLU()  # its name says nothing
        self._gate = gate

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(self._gate(self.gate_proj(x), self.up_proj(x)))
        return y


def model_of(gate: Gate, dtype: torch.dtype, bias: bool) -> nn.Sequential:
    model = nn.Sequential(Block(gate, bias), Block(gate, bias)).to(dtype)
    linears = [name for name, layer in model.named_modules() if type(layer) is nn.Linear]
    take_over(model, Replaceable(linears), context(dtype=dtype))
    return model


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unquantized, "packs", lambda dtype: False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "gate",
    [lambda g, u: F.silu(g) * u, lambda g, u: F.gelu(g, approximate="tanh") * u],
    ids=["silu", "gelu"],
)
@torch.inference_mode()
def test_a_gated_block_is_known_by_what_it_computes(
    gate: Gate, dtype: torch.dtype, bias: bool
) -> None:
    model = model_of(gate, dtype, bias)
    x = torch.randn(1, 5, HIDDEN, dtype=dtype)
    with block_trial(model, context(dtype=dtype)) as blocks:
        expected = model(x)
    blocks.use()
    assert all(isinstance(block, OwnBlock) for block in model)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(model(x), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "gate",
    [
        lambda g, u: F.relu(g) * u,
        lambda g, u: F.silu(u) * g,
        lambda g, u: F.silu(g.clamp(max=0.1)) * u,
    ],
    ids=["relu", "exchanged", "clamped"],
)
@torch.inference_mode()
def test_other_arithmetic_stays(gate: Gate) -> None:
    model = model_of(gate, torch.float32, False)
    with block_trial(model, context()) as blocks:
        model(torch.randn(1, 5, HIDDEN))
    blocks.use()
    assert not any(isinstance(block, OwnBlock) for block in model)


@torch.inference_mode()
def test_layers_that_are_not_ours_stay() -> None:
    model = nn.Sequential(Block(lambda g, u: F.silu(g) * u, bias=False))
    with block_trial(model, context()) as blocks:
        model(torch.randn(1, 5, HIDDEN))
    blocks.use()
    assert not any(isinstance(block, OwnBlock) for block in model)
