"""The mixture-of-experts kernels in the interpreter against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jackfield.compute.kernels.experts import ExpertsConfig, ProductConfig, experts

WIDE = ProductConfig(16, 16, 32, 2, 4, True)
NARROW = ProductConfig(16, 32, 16, 2, 4, False)


def expected(
    x: torch.Tensor,
    logits: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    top_k: int,
    renormalize: bool,
    biases: tuple[torch.Tensor, torch.Tensor] | None = None,
    clamp: tuple[float, float] | None = None,
) -> torch.Tensor:
    """Token by token and expert by expert, in float64."""
    if biases is None:
        biases = gate_up.new_zeros(gate_up.shape[:2]), down.new_zeros(down.shape[:2])
    x, logits, gate_up, down = (t.double() for t in (x, logits, gate_up, down))
    shares, chosen = logits.softmax(-1).topk(top_k, dim=-1)
    if renormalize:
        shares /= shares.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for token in range(len(x)):
        for share, expert in zip(shares[token], chosen[token], strict=True):
            gate, up = (gate_up[expert] @ x[token] + biases[0][expert].double()).chunk(2)
            if clamp is None:
                inner = F.silu(gate) * up
            else:
                alpha, limit = clamp
                gate = torch.minimum(gate, torch.tensor(limit))
                inner = gate / (1 + torch.exp(-alpha * gate)) * (up.clamp(-limit, limit) + 1)
            out[token] += share * (down[expert] @ inner + biases[1][expert].double())
    return out


@pytest.mark.parametrize("config", [None, ExpertsConfig(WIDE, WIDE), ExpertsConfig(NARROW, NARROW)])
@pytest.mark.parametrize(
    ("num_tokens", "num_experts", "top_k", "hidden", "inner", "renormalize"),
    [(1, 8, 2, 64, 48, True), (19, 4, 3, 40, 24, False), (50, 6, 1, 32, 16, True)],
)
def test_tokens_go_through_their_experts(
    num_tokens: int,
    num_experts: int,
    top_k: int,
    hidden: int,
    inner: int,
    renormalize: bool,
    config: ExpertsConfig | None,
) -> None:
    generator = torch.Generator().manual_seed(num_tokens)
    x = torch.randn(num_tokens, hidden, generator=generator)
    logits = torch.randn(num_tokens, num_experts, generator=generator)
    gate_up = torch.randn(num_experts, 2 * inner, hidden, generator=generator) * hidden**-0.5
    down = torch.randn(num_experts, hidden, inner, generator=generator) * inner**-0.5
    wanted = expected(x, logits, gate_up, down, top_k, renormalize)
    for _ in range(2):  # the second call meets the lists that the first one left
        got = experts(x, logits, gate_up, down, top_k=top_k, renormalize=renormalize, config=config)
        assert (got.double() - wanted).abs().max() < 2e-5


CLAMP = (1.702, 0.8)


@pytest.mark.parametrize("config", [ExpertsConfig(WIDE, NARROW), ExpertsConfig(NARROW, WIDE)])
@pytest.mark.parametrize("clamp", [None, CLAMP])
def test_experts_with_biases_and_a_clamped_gate(
    config: ExpertsConfig, clamp: tuple[float, float] | None
) -> None:
    torch.manual_seed(0)
    x, logits = torch.randn(9, 40), torch.randn(9, 5)
    gate_up, down = torch.randn(5, 48, 40) / 6, torch.randn(5, 40, 24) / 5
    biases = (torch.randn(5, 48), torch.randn(5, 40))
    wanted = expected(x, logits, gate_up, down, 2, True, biases, clamp)
    got = experts(
        x,
        logits,
        gate_up,
        down,
        top_k=2,
        renormalize=True,
        biases=biases,
        clamp=clamp,
        config=config,
    )
    assert (got.double() - wanted).abs().max() < 2e-5


def test_an_expert_may_have_all_tokens_and_another_none() -> None:
    logits = torch.full((40, 5), -9.0)
    logits[:, 3] = 4.0
    x, gate_up, down = torch.randn(40, 32), torch.randn(5, 32, 32) / 5, torch.randn(5, 32, 16) / 4
    wanted = expected(x, logits, gate_up, down, 1, False)
    got = experts(x, logits, gate_up, down, top_k=1, renormalize=False)
    assert (got.double() - wanted).abs().max() < 2e-5


def test_half_precision_sums_in_float32() -> None:
    x, logits = torch.randn(9, 64).half(), torch.randn(9, 8).half()
    gate_up, down = (torch.randn(8, 64, 64) / 8).half(), (torch.randn(8, 64, 32) / 6).half()
    wanted = expected(x, logits, gate_up, down, 4, True)
    got = experts(x, logits, gate_up, down, top_k=4, renormalize=True).double()
    assert (got - wanted).norm() / wanted.norm() < 2e-3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_logits_that_are_nan_spoil_their_own_token_only() -> None:
    x, logits = torch.randn(6, 32), torch.randn(6, 4)
    logits[2] = float("nan")
    gate_up, down = torch.randn(4, 32, 32) / 5, torch.randn(4, 32, 16) / 4
    wanted = expected(x, logits, gate_up, down, 2, True)
    got = experts(x, logits, gate_up, down, top_k=2, renormalize=True).double()
    others = torch.tensor([0, 1, 3, 4, 5])
    assert bool(got[2].isnan().all())
    assert (got[others] - wanted[others]).abs().max() < 2e-5
