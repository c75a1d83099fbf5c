"""Prompts that end in a vector, through the step loop: each once, whole, whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.messages import AbortRequests, AddRequest, FinishReason, StepTokens
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import SchedulerLimits
from jackfield.contracts.work import (
    Int32Array,
    KVCapacity,
    PendingStep,
    ScheduledBatch,
    StepOutput,
    TokenMasks,
)
from jackfield.engine.admission import RequestBounds
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.step_loop import EngineCore
from jackfield.testing.simulated_worker import SimulatedStep
from jackfield_schedulers.fcfs import FcfsScheduler

LIMITS = SchedulerLimits(max_num_seqs=4, max_num_batched_tokens=8, max_model_len=48)
VOCABULARY = 97
BLOCK_SIZE = 4


class SummingExecutor:
    """Its vectors are (sum, number) of the ids that a row has computed since it was admitted; ids
    above 90 fail their row."""

    name: ClassVar[str] = "summing"
    api_version: ClassVar[int] = 1

    def __init__(self) -> None:
        self._ids: dict[int, Int32Array] = {}
        self._sums: dict[int, Int32Array] = {}

    def start(self, plan: WorkerPlan) -> KVCapacity:
        return KVCapacity(1, VOCABULARY, 1)

    def execute(self, batch: ScheduledBatch) -> PendingStep:
        for new in batch.admitted:
            self._ids[new.row] = new.token_ids
        vectors, failed = [], []
        arrays = (batch.rows, batch.num_tokens, batch.first_positions, batch.samples)
        for row, count, first, samples in zip(*(each.tolist() for each in arrays), strict=True):
            if first == 0:
                self._sums[row] = np.zeros(2, np.int32)
            ids = self._ids[row][first : first + count]
            self._sums[row] = self._sums[row] + np.array([ids.sum(), count], np.int32)
            if samples:
                vectors.append(self._sums[row])
                if ids.max() > 90:
                    failed.append((row, "too high"))
        pooled = np.array(vectors, dtype=np.float32).reshape(-1, 2)
        nothing = np.zeros(len(batch.rows), np.int32)
        return SimulatedStep(StepOutput(nothing, failed=tuple(failed), pooled=pooled))

    def begin(self, batch: ScheduledBatch) -> None:
        raise AssertionError("nothing is sampled under a grammar")

    def finish(self, masks: TokenMasks) -> PendingStep:
        raise AssertionError("nothing is sampled under a grammar")

    def stop(self) -> None:
        pass


class TokenExecutor(SummingExecutor):
    """Makes a vector of each token: its id, and its position."""

    def execute(self, batch: ScheduledBatch) -> PendingStep:
        for new in batch.admitted:
            self._ids[new.row] = new.token_ids
        vectors: list[tuple[int, int]] = []
        spans = np.stack([batch.first_positions, batch.num_tokens], axis=1)
        for row, (first, count) in zip(batch.rows.tolist(), spans.tolist(), strict=True):
            ids = self._ids[row][first : first + count].tolist()
            vectors += zip(ids, range(first, first + count), strict=True)
        pooled = np.array(vectors, dtype=np.float32).reshape(-1, 2)
        nothing = np.zeros(len(batch.rows), np.int32)
        return SimulatedStep(StepOutput(nothing, pooled=pooled, pooled_spans=spans))


class Outcomes:
    """An engine with no prefix cache, and what it has told."""

    def __init__(
        self,
        num_blocks: int,
        steps_in_flight: int,
        executor: SummingExecutor | None = None,
        *,
        stream_interval: int = 1,
    ) -> None:
        self.blocks = BlockManager(num_blocks, BLOCK_SIZE, None)
        self.core = EngineCore(
            executor or SummingExecutor(),
            FcfsScheduler(LIMITS),
            self.blocks,
            RequestBounds(
                LIMITS.max_model_len,
                VOCABULARY,
                (num_blocks - 1) * BLOCK_SIZE,
                LIMITS.max_num_batched_tokens,
                pooling=True,
            ),
            max_num_seqs=LIMITS.max_num_seqs,
            max_num_batched_tokens=LIMITS.max_num_batched_tokens,
            steps_in_flight=steps_in_flight,
            stream_interval=stream_interval,
        )
        self.vectors: dict[int, list[float]] = {}
        self.finishes: dict[int, FinishReason] = {}
        self.messages: dict[int, str] = {}

    def add(self, key: int, prompt: Sequence[int], *, pooling: bool = True) -> None:
        ids = np.array(prompt, dtype="<i4").tobytes()
        max_tokens = 0 if pooling else 1
        self.core.take_in(
            AddRequest(key, ids, TokenSampling(), max_tokens, arrival=0.0, pooling=pooling)
        )

    def run(self) -> None:
        while self.core.has_work:
            self._note(self.core.step())
        assert self.blocks.num_free == self.blocks.num_blocks - 1
        assert self.core.num_free_rows == LIMITS.max_num_seqs

    def _note(self, step: StepTokens | None) -> None:
        if step is None:
            return
        keys = np.frombuffer(step.keys, dtype="<i8").tolist()
        assert set(np.frombuffer(step.token_ids, dtype="<i4").tolist()) <= {-1}
        for key, finish in zip(keys, np.frombuffer(step.finish, np.int8).tolist(), strict=True):
            assert key not in self.finishes, "ended twice"
            if finish != FinishReason.RUNNING:
                self.finishes[key] = FinishReason(finish)
        for entry in step.pooled:
            assert self.finishes.get(entry.key, FinishReason.STOP) == FinishReason.STOP
            before = self.vectors[entry.key] if entry.first else []
            self.vectors[entry.key] = [*before, *np.frombuffer(entry.vector, "<f4").tolist()]
        self.messages |= {entry.key: entry.message for entry in step.failed}


prompts = st.lists(st.lists(st.integers(0, 90), min_size=1, max_size=48), min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(
    prompts=prompts,
    num_blocks=st.sampled_from([13, 20, 60]),
    steps_in_flight=st.sampled_from([1, 2]),
)
def test_every_prompt_ends_in_one_vector_of_all_its_tokens(
    prompts: list[list[int]], num_blocks: int, steps_in_flight: int
) -> None:
    engine = Outcomes(num_blocks, steps_in_flight)
    for key, prompt in enumerate(prompts):
        engine.add(key, prompt)
    engine.run()
    right = {key: [float(sum(prompt)), float(len(prompt))] for key, prompt in enumerate(prompts)}
    assert engine.vectors == right


@settings(max_examples=150, deadline=None)
@given(
    prompts=prompts,
    num_blocks=st.sampled_from([13, 20, 60]),
    steps_in_flight=st.sampled_from([1, 2]),
)
def test_every_token_has_its_vector_whatever_the_chunks(
    prompts: list[list[int]], num_blocks: int, steps_in_flight: int
) -> None:
    engine = Outcomes(num_blocks, steps_in_flight, TokenExecutor())
    for key, prompt in enumerate(prompts):
        engine.add(key, prompt)
    engine.run()
    assert set(engine.finishes.values()) == {FinishReason.STOP}
    for key, prompt in enumerate(prompts):
        pairs = [(float(token), float(position)) for position, token in enumerate(prompt)]
        assert engine.vectors[key] == [number for pair in pairs for number in pair]


def test_the_vectors_of_a_step_wait_for_no_other_step() -> None:
    """Those of one are as many as a message holds."""
    engine = Outcomes(60, 1, TokenExecutor(), stream_interval=4)
    engine.add(1, list(range(40)))
    while engine.core.has_work:
        message = engine.core.step()
        assert message is not None and len(message.pooled) == 1


def test_a_row_that_fails_fails_alone() -> None:
    engine = Outcomes(60, 2)
    engine.add(1, [1, 2])
    engine.add(2, [95])
    engine.add(3, [4])
    engine.run()
    assert engine.vectors == {1: [3.0, 2.0], 3: [4.0, 1.0]}
    assert engine.finishes[2] == FinishReason.ERROR and engine.messages == {2: "too high"}


def test_an_aborted_prompt_has_no_vector() -> None:
    engine = Outcomes(60, 2)
    engine.add(1, [1] * 40)
    engine.add(2, [2])
    engine._note(engine.core.step())
    engine.core.take_in(AbortRequests([1]))
    engine.run()
    assert engine.vectors == {2: [2.0, 1.0]}
    assert engine.finishes[1] == FinishReason.ABORT


@pytest.mark.parametrize(
    ("prompt", "pooling", "message"),
    [
        ([1] * 49, True, "the prompt has 49 tokens; the context has 48"),
        ([1], False, "the engine makes vectors and generates nothing"),
        ([97], True, "token id 97 in prompt is not between 0 and 96"),
    ],
)
def test_what_cannot_be_pooled_is_refused(prompt: list[int], pooling: bool, message: str) -> None:
    engine = Outcomes(60, 1)
    engine.add(1, prompt, pooling=pooling)
    engine.run()
    assert engine.finishes == {1: FinishReason.ERROR} and engine.messages == {1: message}
