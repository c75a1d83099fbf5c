"""The sampler against the definitions in float64 and against transformers' processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.core.compute.rows import gathered
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from jackfield.compute.row_state import flags_of
from jackfield.compute.sampler import SamplingMode, Way, sample, sampling_mode, uniforms
from jackfield.contracts.sampling import TokenSampling

DRAWS = 2048


def mode_of(*samplings: TokenSampling) -> SamplingMode:
    flags, top_k = 0, 0
    for sampling in samplings:
        flags |= flags_of(sampling)
        if sampling.top_k <= 1024:
            top_k = max(top_k, sampling.top_k)
    return sampling_mode(int(flags), top_k)


def draw(
    logits: torch.Tensor, samplings: list[TokenSampling], positions: list[int] | None = None
) -> list[int]:
    at = torch.tensor(positions or [1] * len(samplings))
    ids, possible = sample(logits, gathered(samplings), at, mode_of(*samplings))
    assert bool(possible.all())
    return ids.tolist()


def kept_by_transformers(logits: torch.Tensor, sampling: TokenSampling) -> torch.Tensor:
    """Probabilities, float64, after transformers' own warpers in their order."""
    scores = logits.double() / sampling.temperature
    ids = torch.zeros(1, 1, dtype=torch.long)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    if sampling.min_p:
        scores = MinPLogitsWarper(sampling.min_p)(ids, scores)
    return scores.softmax(-1)[0]


CUTS = [
    TokenSampling(temperature=1.0),
    TokenSampling(temperature=0.7, min_p=0.1),
    TokenSampling(temperature=1.3, top_k=20),
    TokenSampling(temperature=0.6, top_k=20, top_p=0.95),
    TokenSampling(temperature=0.8, top_k=50, top_p=0.8, min_p=0.05),
    TokenSampling(temperature=1.0, top_p=0.9),
    TokenSampling(temperature=1.5, top_p=0.5, min_p=0.02),
    TokenSampling(temperature=2.0, top_p=0.999),
    TokenSampling(temperature=1.0, top_k=2000, top_p=0.7),
]


@pytest.mark.parametrize("sampling", CUTS, ids=str)
@pytest.mark.parametrize("width", [512, 4864])
def test_draws_follow_the_distribution_that_transformers_keeps(
    sampling: TokenSampling, width: int
) -> None:
    logits = torch.randn(1, width, generator=torch.Generator().manual_seed(3)) * 3
    expected = kept_by_transformers(logits, sampling)
    ids = draw(logits.expand(DRAWS, -1).contiguous(), [sampling] * DRAWS, list(range(1, DRAWS + 1)))
    counts = torch.bincount(torch.tensor(ids), minlength=width).double()
    assert counts[expected == 0].sum() == 0
    # Chi-square over cells of at least 5 expected draws, the rest pooled.
    wanted = expected * DRAWS
    large = wanted >= 5
    cells = torch.cat([(counts - wanted)[large] ** 2 / wanted[large]])
    rest = wanted[~large].sum()
    statistic, freedom = cells.sum(), int(large.sum()) - 1
    if rest >= 5:
        statistic = statistic + (counts[~large].sum() - rest) ** 2 / rest
        freedom += 1
    # Five standard deviations of the chi-square distribution.
    assert statistic < freedom + 5 * (2 * max(freedom, 1)) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [7, 100, 4096, 4100])
def test_greedy_takes_the_first_of_the_largest_float32_logits(
    dtype: torch.dtype, width: int
) -> None:
    logits = torch.randn(33, width).to(dtype)
    logits[:, width // 2 :] = logits[:, : width - width // 2]
    assert draw(logits, [TokenSampling()] * 33) == logits.float().argmax(-1).tolist()


def test_a_seeded_row_draws_the_same_token_whatever_it_is_batched_with() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = (torch.randn(6, 4096, generator=generator) * 2).bfloat16()
    mine = TokenSampling(temperature=0.9, top_k=30, top_p=0.97, seed=11)
    others = [
        TokenSampling(),
        TokenSampling(temperature=1.0, seed=1),
        TokenSampling(temperature=1.0, top_p=0.9, seed=2),
        TokenSampling(temperature=1.0, top_k=700, seed=3),
        TokenSampling(temperature=1.0, top_k=1500, seed=4),
    ]
    for position in range(1, 40):
        alone = draw(logits[:1], [mine], [position])[0]
        for n in range(1, len(others) + 1):
            batch = [*others[:n], mine]
            rows = torch.cat([logits[1 : n + 1], logits[:1]])
            assert draw(rows, batch, [7] * n + [position])[-1] == alone


def test_greedy_rows_stay_greedy_beside_sampled_ones() -> None:
    logits = torch.randn(3, 4096).bfloat16()
    for other in CUTS:
        ids = draw(logits, [TokenSampling(), other, TokenSampling(temperature=0.9, top_k=1)])
        assert ids[::2] == logits.float().argmax(-1).tolist()[::2]


def test_the_whole_vocabulary_is_sorted_only_where_a_row_needs_it() -> None:
    assert mode_of(TokenSampling()).way is Way.GREEDY
    assert mode_of(TokenSampling(temperature=1, top_k=40, top_p=0.9)).way is Way.SHORTLIST
    assert mode_of(TokenSampling(temperature=1, min_p=0.1)).way is Way.WHOLE
    assert mode_of(TokenSampling(temperature=1, top_p=0.9)).way is Way.NUCLEUS
    assert mode_of(TokenSampling(temperature=1, top_k=1025)).way is Way.NUCLEUS
    assert mode_of(TokenSampling(temperature=1e-6)).way is Way.GREEDY


@pytest.mark.parametrize("sampling", [TokenSampling(), *CUTS], ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_without_finite_logits_is_reported_and_the_others_are_sampled(
    sampling: TokenSampling, bad: float
) -> None:
    logits = torch.randn(3, 4864)
    logits[1, 77] = bad
    logits[2] = -float("inf")
    ids, possible = sample(
        logits, gathered([sampling] * 3), torch.tensor([1, 2, 3]), mode_of(sampling)
    )
    assert possible.tolist() == [True, False, False]
    assert all(0 <= token < 4864 for token in ids.tolist())
    assert ids[0] == draw(logits[:1], [sampling])[0]


def test_uniforms_are_splitmix64() -> None:
    """Steele, Lea and Flood's mix64, in Python's integers."""
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    seeds = [0, 1, -1, 2**63 - 1, -(2**63)]
    for seed in seeds:
        mixed = gathered([TokenSampling(seed=seed)]).seed[0, 0]
        assert int(mixed) & mask == mix((seed + 0x9E3779B97F4A7C15) & mask)
        for position in (1, 2, 12345):
            z = (int(mixed) + position * 0x9E3779B97F4A7C15) & mask
            expected = (mix(z) >> 11) * 2.0**-53
            assert float(uniforms(mixed[None], torch.tensor([position]))[0]) == expected


def test_uniforms_of_neighbouring_seeds_and_positions_are_uniform_and_unrelated() -> None:
    seeds = torch.cat([gathered([TokenSampling(seed=s) for s in range(200)]).seed[:, 0]])
    drawn = np.stack([uniforms(seeds, torch.full((200,), p)).numpy() for p in range(1, 201)])
    assert abs(drawn.mean() - 0.5) < 0.01
    assert abs(drawn.std() - 12**-0.5) < 0.01
    correlations = [
        np.corrcoef(drawn[1:].ravel(), drawn[:-1].ravel())[0, 1],
        np.corrcoef(drawn[:, 1:].ravel(), drawn[:, :-1].ravel())[0, 1],
        np.corrcoef(drawn[1:, :-1].ravel(), drawn[:-1, 1:].ravel())[0, 1],
    ]
    assert max(abs(c) for c in correlations) < 0.03
