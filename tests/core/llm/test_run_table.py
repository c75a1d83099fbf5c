"""What a step means to the requests under way, and what observers hear of it."""

from __future__ import annotations

import numpy as np
import pytest

from jackfield.contracts.generation import GenerationRequest, RequestRecord
from jackfield.contracts.messages import AbortRequests, AddRequest, FinishReason, StepTokens
from jackfield.contracts.sampling import SamplingParams, TokenSampling
from jackfield.llm.run import Run
from jackfield.llm.run_table import RunTable
from jackfield.text.output import ChoiceOutput


class Gaps:
    """An observer; seconds and counts, as told."""

    def __init__(self) -> None:
        self.told: list[tuple[float, int]] = []

    def request_finished(self, record: RequestRecord) -> None: ...

    def inter_token(self, seconds: float, count: int) -> None:
        self.told.append((seconds, count))


def start(table: RunTable, *keys: int) -> Run:
    """A request with a choice for each key."""
    request = GenerationRequest("r", (1,), SamplingParams(n=len(keys)))
    messages = [AddRequest(key, b"\1\0\0\0", TokenSampling(), 8, 0.0) for key in keys]
    choices = [ChoiceOutput(i, None, (1,), request.sampling) for i in range(len(keys))]
    run = Run(request, messages, lambda: choices, 0.0, 8, wake_at_end=True, waits_for_text=False)
    run.begin()
    table.add(run)
    return run


def step(*keys: int, finish: FinishReason = FinishReason.RUNNING) -> StepTokens:
    """Token 10 more than its key for each."""
    return StepTokens(
        keys=np.array(keys, dtype="<i8").tobytes(),
        token_ids=np.array([key + 10 for key in keys], dtype="<i4").tobytes(),
        finish=np.full(len(keys), finish, dtype=np.int8).tobytes(),
    )


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which steps arrive, in turn."""
    times: list[float] = []
    monkeypatch.setattr("time.monotonic", lambda: times.pop(0))
    return times


def test_every_gap_between_tokens_is_told_and_equal_ones_together(moments: list[float]) -> None:
    table, gaps = RunTable(lambda message: None), Gaps()
    table.observe(gaps)
    a, b = start(table, 1), start(table, 2)
    moments += [1.0, 2.5, 4.0]
    table.hand_out_tokens(step(1))
    assert gaps.told == []
    table.hand_out_tokens(step(1, 2))
    assert gaps.told == [(1.5, 1)]
    table.hand_out_tokens(step(1, 2, finish=FinishReason.LENGTH))
    assert gaps.told == [(1.5, 1), (1.5, 2)]
    assert (a.first_token, a.last_token, a.num_output) == (1.0, 4.0, 3)
    assert (b.first_token, b.last_token, b.num_output) == (2.5, 4.0, 2)
    assert len(table) == 0


async def test_tokens_come_to_their_choices_and_strangers_to_nobody() -> None:
    aborted: list[AbortRequests] = []
    table = RunTable(aborted.append)
    run = start(table, 5, 6)
    table.hand_out_tokens(step(6, 99, 5))
    table.hand_out_tokens(step(5, 6, finish=FinishReason.LENGTH))
    deltas = await run.take()
    assert [(each.index, each.token_ids) for each in deltas] == [
        (1, (16,)),
        (0, (15,)),
        (0, (15,)),
        (1, (16,)),
    ]
    assert [each.finish is not None for each in deltas] == [False, False, True, True]
    assert aborted == []
