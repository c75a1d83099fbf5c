"""What a step means to the requests under way, and what observers hear of it."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from tests.core.text.conftest import byte_level

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest, RequestRecord
from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    CallAnswer,
    EngineStats,
    FinishReason,
    RequestFailed,
    RequestLogprobs,
    RequestPooled,
    StepTokens,
    TokenLogprobs,
)
from jackfield.contracts.sampling import SamplingParams, TokenSampling
from jackfield.contracts.text import Tokenizer
from jackfield.engine.joined_steps import joined
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


def start(
    table: RunTable, *keys: int, tokenizer: Tokenizer | None = None, stop: tuple[str, ...] = ()
) -> Run:
    """A request with a choice for each key."""
    request = GenerationRequest("r", (1,), SamplingParams(n=len(keys), stop=stop or None))
    messages = [AddRequest(key, b"\1\0\0\0", TokenSampling(), 8, 0.0) for key in keys]
    choices = [ChoiceOutput(i, tokenizer, (1,), request.sampling) for i in range(len(keys))]
    run = Run(request, messages, lambda: choices, 0.0, 8, wake_at_end=True, waits_for_text=False)
    run.begin()
    table.add(run)
    return run


def random_steps(rng: random.Random, num_choices: int) -> list[StepTokens]:
    """What an engine may tell of some choices: tokens, logprobs, first tokens, ends of any kind."""
    steps = []
    left = {key: rng.randint(1, 9) for key in range(1, num_choices + 1)}
    begun: set[int] = set()
    while left:
        keys = [key for key in left if rng.random() < 0.8]
        finishes, tokens, logprobs = [], [], []
        for key in keys:
            left[key] -= 1
            finishes.append(0 if left[key] else rng.choice((1, 2, 3)))
            tokens.append(-1 if finishes[-1] == FinishReason.ABORT else rng.randrange(64, 100))
            if key % 2 and tokens[-1] >= 0:
                entry = TokenLogprobs(tokens[-1], -rng.random(), 1, [], [])
                logprobs.append(RequestLogprobs(key, [entry], [] if key in begun else [entry]))
        firsts = [key not in begun for key in keys]
        begun.update(keys)
        left = {key: count for key, count in left.items() if count}
        steps.append(
            StepTokens(
                keys=np.array(keys, dtype="<i8").tobytes(),
                token_ids=np.array(tokens, dtype="<i4").tobytes(),
                finish=np.array(finishes, dtype=np.int8).tobytes(),
                num_cached=np.where(firsts, 7, 0).astype("<i4").tobytes() if any(firsts) else b"",
                scheduled=np.where(firsts, 2.5, 0).astype("<f8").tobytes() if any(firsts) else b"",
                logprobs=logprobs,
            )
        )
    return steps


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
    assert (a.first_token, a.last_token, a.num_outputs) == (1.0, 4.0, [3])
    assert (b.first_token, b.last_token, b.num_outputs) == (2.5, 4.0, [2])
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


def gained(run: Run, deltas: list[ChoiceDelta]) -> list[tuple[object, ...]]:
    """All that each choice of a run gained, however it came, and what is noted of the run."""
    parts = []
    for index in range(len(run.keys)):
        mine = [delta for delta in deltas if delta.index == index]
        parts.append(
            (
                "".join(delta.text for delta in mine),
                [token for delta in mine for token in delta.token_ids],
                [entry for delta in mine for entry in delta.logprobs],
                [entry for delta in mine for entry in delta.prompt_logprobs],
                [delta.finish for delta in mine if delta.finish is not None],
            )
        )
    return [*parts, (run.num_outputs, run.first_scheduled, run.num_cached)]


@pytest.mark.parametrize("stop", [(), ("a",)])
@pytest.mark.parametrize("seed", range(20))
async def test_steps_that_come_together_mean_what_they_mean_one_by_one(
    seed: int, stop: tuple[str, ...]
) -> None:
    rng = random.Random(seed)
    steps = random_steps(rng, 5)
    outcomes = []
    for together in (1, 4, 5, len(steps) + 1):
        aborted: list[AbortRequests] = []
        table, gaps = RunTable(aborted.append), Gaps()
        table.observe(gaps)
        run = start(table, 1, 2, 3, 4, 5, tokenizer=byte_level(), stop=stop)
        for begin in range(0, len(steps), together):
            messages = list(joined(steps[begin : begin + together]))
            assert len(messages) in (1, len(steps) - begin)
            for message in messages:
                assert isinstance(message, StepTokens)
                table.hand_out_tokens(message)
        keys = sorted(key for message in aborted for key in message.keys)
        num_gaps = sum(count for _, count in gaps.told)
        outcomes.append((gained(run, await run.take()), keys, num_gaps))
    assert outcomes[0] == outcomes[1] == outcomes[2] == outcomes[3]


def test_cached_tokens_and_the_time_of_scheduling_are_those_of_the_choice_that_begins() -> None:
    table = RunTable(lambda message: None)
    run = start(table, 5, 6)

    def first(key: int, cached: int, scheduled: float) -> StepTokens:
        return msgspec.structs.replace(
            step(key),
            num_cached=np.array([cached], "<i4").tobytes(),
            scheduled=np.array([scheduled], "<f8").tobytes(),
        )

    for message in (first(6, 32, 2.5), first(5, 48, 3.5)):
        table.hand_out_tokens(message)
    assert (run.first_scheduled, run.num_cached) == (2.5, 32)
    assert [delta.num_cached_tokens for delta in run._pending] == [32, 32]


def test_tokens_that_come_together_are_one_piece() -> None:
    table = RunTable(lambda message: None)
    run = start(table, 5)
    (message,) = joined([step(5)] * 4)
    assert isinstance(message, StepTokens)
    table.hand_out_tokens(message)
    assert [delta.token_ids for delta in run._pending] == [(15, 15, 15, 15)]


def test_a_reader_that_is_hardly_behind_has_tokens_singly() -> None:
    steps = [step(5), step(5), step(6)]
    assert list(joined(steps)) == steps


def test_what_steps_tell_beside_tokens_is_all_there_and_the_last_statistics_count() -> None:
    steps = [step(key) for key in range(1, 6)]
    for number in (1, 3):
        steps[number] = msgspec.structs.replace(
            steps[number],
            failed=[RequestFailed(number, "why")],
            pooled=[RequestPooled(number, b"abcd")],
            stats=EngineStats(number, 0, 0, 0, 0, 0, 0, 0, 0),
        )
    (message,) = joined(steps)
    assert isinstance(message, StepTokens)
    assert [entry.key for entry in message.failed] == [1, 3]
    assert [entry.key for entry in message.pooled] == [1, 3]
    assert message.stats is not None and message.stats.num_running == 3


def test_other_messages_stay_where_they_are_between_steps() -> None:
    answer = CallAnswer()
    messages = list(joined([*(step(key) for key in (1, 2, 3, 4)), answer, step(5)]))
    assert [type(message) for message in messages] == [StepTokens, CallAnswer, StepTokens]
    assert isinstance(messages[0], StepTokens)
    assert np.frombuffer(messages[0].keys, dtype="<i8").tolist() == [1, 2, 3, 4]
