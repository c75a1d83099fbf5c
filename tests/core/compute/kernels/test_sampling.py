"""The sampling kernels in the interpreter against float64."""

from __future__ import annotations

import pytest
import torch

from jackfield.compute.kernels import sampling

WIDTH = 9001  # three parts of a row, the last of them short
NOTHING = float("-inf")


def rows(num_rows: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(num_rows, WIDTH, generator=generator) * 4).to(dtype)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).unsqueeze(1)


def weights(logits: torch.Tensor, temperature: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    wide = logits.double()
    scaled = (wide - wide.amax(-1, keepdim=True)) / temperature.double()
    return scaled.exp().masked_fill(wide < least.double(), 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_draw_inverts_the_cumulative_distribution(dtype: torch.dtype) -> None:
    logits = rows(6, dtype)
    temperature, min_p = column(1, 0.5, 2, 1, 1, 0.7), column(0, 0, 0, 0.05, 0, 0.2)
    threshold = column(NOTHING, NOTHING, 3.0, NOTHING, 6.5, NOTHING)
    reach = min_p.log() * temperature
    least = torch.maximum(threshold, logits.float().amax(-1, keepdim=True) + reach)
    cumulative = weights(logits, temperature, least).cumsum(-1)
    cumulative /= cumulative[:, -1:].clone()
    for u in (0.0, 1e-9, 0.1, 0.37, 0.5, 0.93, 1 - 2**-53):
        uniform = torch.full((6,), u, dtype=torch.float64)
        ids, peaks = sampling.draw(logits, temperature, threshold, reach, uniform)
        at = cumulative.gather(1, ids[:, None])[:, 0]
        below = torch.where(ids > 0, cumulative.gather(1, (ids - 1).clamp_min(0)[:, None])[:, 0], 0)
        assert bool((at > below).all()), "only tokens with weight are drawn"
        assert bool((below <= u + 1e-6).all() and (at >= u - 1e-6).all())
        assert torch.equal(peaks, logits.float().amax(-1))


def test_a_row_with_a_nan_has_no_peak() -> None:
    logits = rows(2, torch.float32)
    logits[1, 5000] = float("nan")
    all_of_them = column(NOTHING, NOTHING)
    uniform = torch.tensor([0.5, 0.5], dtype=torch.float64)
    ids, peaks = sampling.draw(logits, column(1, 1), all_of_them, all_of_them, uniform)
    assert peaks.isfinite().tolist() == [True, False]
    assert bool((ids < WIDTH).all())


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
    cases += [(0.1, 0, 0.2), (1.0, 1, 0.5)]
    logits = rows(len(cases), dtype, seed=3)
    temperatures, ks, ps = zip(*cases, strict=True)
    found = sampling.cut(
        logits, column(*temperatures), torch.tensor(ks, dtype=torch.int32), column(*ps)
    )
    for row, threshold, case in zip(logits, found.tolist(), cases, strict=True):
        check_cut(row, threshold, *case)


def test_a_row_without_limits_is_not_cut() -> None:
    logits = rows(2, torch.bfloat16)
    top_k = torch.tensor([0, 2], dtype=torch.int32)
    found = sampling.cut(logits, column(1, 1), top_k, column(1, 1))
    assert found[0] == NOTHING
    assert found[1] == logits[1].float().sort(descending=True).values[1]
