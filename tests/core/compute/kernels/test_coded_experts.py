"""Experts of coded weights in the interpreter against float64."""

from __future__ import annotations

import pytest
import tests.interpreter
import torch
from tests.core.compute.kernels.coded_cases import Format, make_codes
from tests.core.compute.kernels.test_experts import CLAMP, expected

from jackfield.compute.kernels.coded import CodedConfig
from jackfield.compute.kernels.coded_experts import CodedExpertsConfig, coded_experts

DEVICE = tests.interpreter.DEVICE
NARROW = CodedConfig(2, 1, 1, 2, 1, 1)
BROAD = CodedConfig(4, 1, 2, 1, 1, 2)


@pytest.mark.parametrize("config", [None, CodedExpertsConfig(NARROW, BROAD)], ids=str)
@pytest.mark.parametrize(
    ("num_tokens", "num_experts", "top_k", "kind", "groups", "renormalize"),
    [
        (1, 4, 2, "int4", 1, True),
        (11, 3, 2, "e4m3", 1, False),
        (6, 4, 3, "fp4", 4, True),
        (20, 2, 1, "int8", 2, True),
    ],
)
def test_tokens_go_through_their_coded_experts(
    num_tokens: int,
    num_experts: int,
    top_k: int,
    kind: str,
    groups: int,
    renormalize: bool,
    config: CodedExpertsConfig | None,
) -> None:
    torch.manual_seed(num_tokens)
    hidden, inner = 128, 64
    gate_up = Format(kind, num_experts * 2 * inner, hidden, groups, False)
    first, gate_up_numbers = make_codes(gate_up, DEVICE)
    second, down_numbers = make_codes(
        Format(kind, num_experts * hidden, inner, -(-groups // 2), False), DEVICE
    )
    x = torch.randn(num_tokens, hidden).to(DEVICE).half() / 100
    logits = torch.randn(num_tokens, num_experts).to(DEVICE).half()
    wanted = expected(
        x,
        logits,
        gate_up_numbers.view(num_experts, 2 * inner, hidden),
        down_numbers.view(num_experts, hidden, inner),
        top_k,
        renormalize,
    )
    for _ in range(2):  # the second call meets the lists that the first one left
        got = coded_experts(
            x, logits, first, second, top_k=top_k, renormalize=renormalize, config=config
        )
        assert got.shape == x.shape and got.dtype is x.dtype
        assert float((got.double() - wanted).norm() / wanted.norm()) < 2e-3


@pytest.mark.parametrize("clamp", [None, CLAMP])
def test_coded_experts_with_biases_and_a_clamped_gate(clamp: tuple[float, float] | None) -> None:
    torch.manual_seed(0)
    num_experts, hidden, inner = 3, 128, 64
    formats = (
        Format("fp4", num_experts * 2 * inner, hidden, 4, False),
        Format("fp4", num_experts * hidden, inner, 2, False),
    )
    (gate_up, gate_up_numbers), (down, down_numbers) = (make_codes(f, DEVICE) for f in formats)
    x = torch.randn(5, hidden).to(DEVICE).half() / 100
    logits = torch.randn(5, num_experts).to(DEVICE).half()
    biases = (
        torch.randn(num_experts, 2 * inner).to(DEVICE).half(),
        torch.randn(num_experts, hidden).to(DEVICE).half(),
    )
    wanted = expected(
        x,
        logits,
        gate_up_numbers.view(num_experts, 2 * inner, hidden),
        down_numbers.view(num_experts, hidden, inner),
        2,
        True,
        biases,
        clamp,
    )
    got = coded_experts(
        x, logits, gate_up, down, top_k=2, renormalize=True, biases=biases, clamp=clamp
    )
    assert float((got.double() - wanted).norm() / wanted.norm()) < 2e-3
