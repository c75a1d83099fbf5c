"""Experts that are taken together, or not, against each by itself."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from unittest import mock

import pytest
import tests.interpreter
import torch
from tests.core.compute.kernels.coded_cases import Format, make
from torch import Tensor

from jackfield.compute.kernels.coded_experts import coded_experts
from jackfield.compute.layers import coded_experts as coded
from jackfield.compute.layers.coded_experts import CodedExperts
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.layers.device_weight import DeviceWeight
from jackfield.compute.layers.mlp import GatedMLP
from jackfield.compute.layers.moe import ExpertsConfig
from jackfield.contracts.model import BuildContext, TensorParallelGroup

DEVICE = tests.interpreter.DEVICE
HIDDEN, INNER, COUNT = 64, 32, 2


@pytest.fixture
def experts() -> CodedExperts:
    context = BuildContext(
        torch.float16,
        DEVICE,
        TensorParallelGroup(),
        mock.Mock(),
        max_model_len=64,
        max_num_batched_tokens=64,
    )
    config = ExpertsConfig(COUNT, 2, INNER, True)
    return CodedExperts(HIDDEN, config, activation="silu", context=context, prefix="experts")


def load(experts: CodedExperts, kinds: list[str]) -> Callable[[Tensor, Tensor], Tensor]:
    """Gives each expert its weights, the last one first; what they do, in float64."""
    torch.manual_seed(0)
    numbers: list[tuple[Tensor, Tensor]] = []
    for block, kind in zip(reversed(list(experts)), kinds, strict=True):
        assert isinstance(block, GatedMLP)
        exact = []
        for layer, shape in (
            (block.gate_up_proj, (2 * INNER, HIDDEN)),
            (block.down_proj, (HIDDEN, INNER)),
        ):
            weight, values = make(Format(kind, *shape, 1, False), DEVICE)
            give(layer, weight)
            exact.append(values)
        numbers.insert(0, (exact[0], exact[1]))

    def expected(x: Tensor, logits: Tensor) -> Tensor:
        shares, chosen = logits.double().softmax(-1).topk(2, dim=-1)
        shares /= shares.sum(-1, keepdim=True)
        out = torch.zeros(x.shape, dtype=torch.float64, device=DEVICE)
        for token, (own, experts_of) in enumerate(zip(shares, chosen.tolist(), strict=True)):
            for share, expert in zip(own, experts_of, strict=True):
                gate_up, down = numbers[expert]
                gate, up = (gate_up @ x[token].double()).chunk(2)
                out[token] += share * (down @ (torch.nn.functional.silu(gate) * up))
        return out

    return expected


def give(layer: torch.nn.Module, weight: CodedWeight) -> None:
    """As ``CodedLinear`` does on a GPU."""
    own = DeviceWeight.of(weight)
    assert own is not None
    if not layer.__dict__["stack"].take(layer, own):
        layer.__dict__["coded"] = own
    layer.__dict__["method"] = SimpleNamespace(
        apply=lambda layer, x, bias: layer.__dict__["coded"].multiply(x, bias)
    )


@pytest.mark.parametrize(("kinds", "together"), [(["int4"] * 2, True), (["int8", "e4m3"], False)])
def test_experts_of_one_format_are_multiplied_together(
    experts: CodedExperts, kinds: list[str], together: bool
) -> None:
    expected = load(experts, kinds)
    x, logits = torch.randn(2, HIDDEN).half() / 8, torch.randn(2, COUNT).half()
    with mock.patch.object(coded, "coded_experts", wraps=coded_experts) as multiply:
        out = experts(x.to(DEVICE), logits.to(DEVICE))
    assert bool(multiply.called) is together
    wanted = expected(x.to(DEVICE), logits.to(DEVICE))
    assert float((out.double() - wanted).norm() / wanted.norm()) < 2e-3
