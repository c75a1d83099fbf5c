"""The sampling kernels in the interpreter against float64."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tests.core.compute.rows import admitted, new_state
from torch import Tensor

from jackfield.compute.kernels import sampling
from jackfield.compute.row_state import RowState
from jackfield.compute.sampler import uniforms
from jackfield.contracts.sampling import TokenSampling

WIDTH = 9001  # three parts of a row, the last of them short
NOTHING = float("-inf")


def logits_of(num_rows: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(num_rows, WIDTH, generator=generator) * 4).to(dtype)


def state_of(*samplings: TokenSampling) -> RowState:
    """A row for each, in the reverse order."""
    state = new_state(len(samplings))
    rows = reversed(range(len(samplings)))
    state.admit([admitted(row, [1], each) for row, each in zip(rows, samplings, strict=True)])
    return state


def rows_of(state: RowState) -> torch.Tensor:
    return torch.arange(state.dummy_row).flip(0)


def draw(
    logits: torch.Tensor,
    state: RowState,
    position: int = 3,
    thresholds: torch.Tensor | None = None,
) -> torch.Tensor:
    rows = rows_of(state)
    at = torch.full_like(rows, position)
    return sampling.draw(logits, state.records, rows, at, state.token_ids, thresholds)


def weights(logits: torch.Tensor, samplings: Sequence[TokenSampling], cut: list[float]) -> Tensor:
    """What is kept of each row, float64."""
    wide = logits.double()
    temperature = torch.tensor([[each.temperature] for each in samplings]).double()
    scaled = (wide - wide.amax(-1, keepdim=True)) / temperature
    min_p = torch.tensor([[each.min_p] for each in samplings]).double()
    kept = (wide >= torch.tensor(cut)[:, None]) & (scaled >= min_p.log() - 1e-6)
    return scaled.exp().masked_fill(~kept, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("cut", [[NOTHING] * 6, [NOTHING, NOTHING, 3.0, NOTHING, 6.5, NOTHING]])
def test_a_draw_inverts_the_cumulative_distribution(dtype: torch.dtype, cut: list[float]) -> None:
    samplings = [
        TokenSampling(temperature=temperature, min_p=min_p, seed=seed)
        for seed, (temperature, min_p) in enumerate(
            [(1, 0), (0.5, 0), (2, 0), (1, 0.05), (1, 0), (0.7, 0.2)]
        )
    ]
    state, logits = state_of(*samplings), logits_of(6, dtype)
    logits[0, 4096:8192] = NOTHING
    cumulative = weights(logits, samplings, cut).cumsum(-1)
    cumulative /= cumulative[:, -1:].clone()
    thresholds = None if cut[2] == NOTHING else torch.tensor(cut)
    seeds = state.gather_sampling(rows_of(state)).seed.squeeze(1)
    for position in range(1, 30):
        u = uniforms(seeds, torch.full((6,), position))
        ids = draw(logits, state, position, thresholds).long()
        assert torch.equal(state.token_ids[rows_of(state), position].long(), ids)
        at = cumulative.gather(1, ids[:, None])[:, 0]
        below = torch.where(ids > 0, cumulative.gather(1, (ids - 1).clamp_min(0)[:, None])[:, 0], 0)
        assert bool((at > below).all()), "only tokens with weight are drawn"
        assert bool((below <= u + 1e-6).all() and (at >= u - 1e-6).all())


def test_a_greedy_row_beside_others_gets_the_first_of_the_largest() -> None:
    greedy, drawn = TokenSampling(), TokenSampling(temperature=1.0, seed=5)
    logits = logits_of(3, torch.bfloat16)
    logits[0, [4000, 7000]] = 30.0
    state = state_of(greedy, drawn, greedy)
    for thresholds in (None, torch.full((3,), NOTHING)):
        ids = draw(logits, state, thresholds=thresholds)
        assert ids[0] == 4000
        assert ids[2] == logits[2].argmax()


def test_a_row_without_a_finite_peak_has_no_choice() -> None:
    logits = logits_of(4, torch.float32)
    logits[1, 5000], logits[2, 17], logits[3] = float("nan"), float("inf"), NOTHING
    state = state_of(*[TokenSampling(temperature=1.0, min_p=0.1)] * 3, TokenSampling())
    ids = draw(logits, state)
    assert ids[0] >= 0
    assert ids[1:].tolist() == [-1, -1, -1]
    written = state.token_ids[rows_of(state), 3]
    assert bool(((written >= 0) & (written < WIDTH)).all())


def check_cut(row: torch.Tensor, found: float, temperature: float, k: int, p: float) -> None:
    values = row.double().sort(descending=True).values
    if k:
        values = values[values >= values[k - 1]]
    if p >= 1:
        assert found == values.min()
        return
    probabilities = ((values - values[0]) / temperature).softmax(0)
    assert found in values
    assert probabilities[values > found].sum() < p + 1e-6
    assert probabilities[values >= found].sum() >= p - 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_cut_is_the_one_that_sorting_finds(dtype: torch.dtype) -> None:
    cases = [(1.0, 0, 0.9), (0.6, 0, 0.5), (2.0, 0, 0.999), (1.0, 3000, 0.7), (1.0, 7, 1.0)]
    cases += [(0.1, 0, 0.2), (1.0, 2, 0.5)]
    logits = logits_of(len(cases), dtype, seed=3)
    state = state_of(*[TokenSampling(temperature=t, top_k=k, top_p=p) for t, k, p in cases])
    found = sampling.cut(logits, state.records, rows_of(state))
    for row, threshold, case in zip(logits, found.tolist(), cases, strict=True):
        check_cut(row, threshold, *case)


def test_a_row_without_limits_is_not_cut() -> None:
    logits = logits_of(2, torch.bfloat16)
    state = state_of(TokenSampling(temperature=1.0), TokenSampling(temperature=1.0, top_k=2))
    found = sampling.cut(logits, state.records, rows_of(state))
    assert found[0] == NOTHING
    assert found[1] == logits[1].float().sort(descending=True).values[1]
