"""Vectors of prompts that come in chunks, mixed with others, are those of the whole prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from jackfield.compute.pooler import NOT_FINITE, PooledStep, Pooler
from jackfield.compute.transfer import Uploads
from jackfield.config.plan import PoolerPlan
from jackfield.contracts.model import Model
from jackfield.contracts.work import ScheduledBatch

HIDDEN = 8


class Head:
    """Scores of five labels; only that much of a model is asked for."""

    weight = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1))

    def compute_logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.weight.T


def batch(*parts: tuple[int, int, int, bool]) -> ScheduledBatch:
    """(row, first position, number of tokens, whether it is complete) of each sequence."""
    rows, firsts, counts, complete = zip(*parts, strict=True)
    return ScheduledBatch(
        step=1,
        admitted=(),
        rows=np.array(rows, np.int32),
        num_tokens=np.array(counts, np.int32),
        first_positions=np.array(firsts, np.int32),
        samples=np.array(complete, np.bool_),
        new_blocks=np.empty((0, 3), np.int32),
    )


def pooler(kind: str, **changes: object) -> Pooler:
    model: Model = Head()  # type: ignore[assignment]
    plan = PoolerPlan(kind=kind, **changes)  # type: ignore[arg-type]
    return Pooler(plan, model, 4, Uploads(torch.device("cpu")))


STATES = torch.randn(20, HIDDEN, generator=torch.Generator().manual_seed(0))
RIGHT = {"last": STATES[9], "cls": STATES[0], "mean": STATES[:10].double().mean(0).float()}


@pytest.mark.parametrize("kind", ["last", "mean", "cls"])
def test_chunks_make_the_vector_of_the_whole(kind: str) -> None:
    made = pooler(kind)
    # Row 2 has ten tokens in three steps; row 0 is used by two prompts one after the other.
    first = made.pool(
        batch((0, 0, 1, True), (2, 0, 4, False)), torch.cat([STATES[15:16], STATES[:4]])
    )
    second = made.pool(
        batch(
            (2, 4, 1, False),
        ),
        STATES[4:5],
    )
    # The states of a step may be padded.
    third = made.pool(
        batch((0, 0, 2, True), (2, 5, 5, True)), torch.cat([STATES[16:18], STATES[5:12]])
    )
    assert torch.equal(first, STATES[15:16]) and len(second) == 0
    others = {"last": STATES[17], "cls": STATES[16], "mean": STATES[16:18].mean(0)}
    assert torch.allclose(third, torch.stack([others[kind], RIGHT[kind]]), atol=1e-6)


def test_scores_are_the_heads_and_tokens_a_choice_of_them() -> None:
    whole = batch((1, 0, 10, True))
    scores = Head().compute_logits(STATES[9:10])
    assert torch.allclose(pooler("last", scores=True).pool(whole, STATES[:10]), scores)
    chosen = pooler("last", scores=True, token_ids=(3, 1)).pool(whole, STATES[:10])
    assert torch.allclose(chosen, scores[:, [3, 1]])
    nothing = pooler("last", scores=True).pool(batch((1, 0, 4, False)), STATES[:4])
    assert len(nothing) == 0


def test_a_vector_that_is_not_finite_fails_its_row_alone() -> None:
    pooled = torch.tensor([[1.0, 2.0], [torch.nan, 1.0], [torch.inf, 0.0]])
    step = batch((3, 0, 1, True), (0, 0, 2, True), (2, 0, 1, False), (1, 0, 1, True))
    output = PooledStep(step, pooled, ((1, "known"),)).wait()
    assert output.failed == ((1, "known"), (0, NOT_FINITE))
    assert output.pooled is not None and output.pooled[0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("scores", [False, True])
def test_all_tokens_have_a_vector_and_the_step_says_whose(scores: bool) -> None:
    made = pooler("all", scores=scores)
    parts = batch((0, 0, 1, True), (2, 4, 3, False))
    pooled = made.pool(parts, STATES[:6])
    right = Head().compute_logits(STATES[:4]) if scores else STATES[:4]
    assert torch.allclose(pooled, right)
    output = PooledStep(parts, pooled, (), made.spans(parts)).wait()
    assert output.pooled_spans is not None
    assert output.pooled_spans.tolist() == [[0, 1], [4, 3]] and not output.failed


def test_a_token_that_is_not_finite_fails_its_own_sequence() -> None:
    made = pooler("all")
    parts = batch((0, 0, 1, True), (2, 4, 3, False), (1, 0, 2, True))
    states = STATES[:6].clone()
    states[2] = torch.nan
    output = PooledStep(parts, made.pool(parts, states), (), made.spans(parts)).wait()
    assert output.failed == ((2, NOT_FINITE),)
