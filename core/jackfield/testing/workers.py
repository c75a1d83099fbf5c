"""The laws of workers and executors: they run an engine's steps and answer in order.

::

    class TestMine(WorkerContract):
        worker = MyWorker

        def plan(self):
            return simulated_plan(model="some/checkpoint", config={...})

    class TestMine(ExecutorContract):
        executor = MyExecutor

A worker's kit runs an engine's own loop on it. An executor's kit does too, with a worker that
notices every mistake in paging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import pytest

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.messages import FinishReason
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import SchedulerLimits
from jackfield.contracts.work import (
    AdmittedRow,
    CallsWorkers,
    Executor,
    KVCapacity,
    ScheduledBatch,
    TokenMasks,
    Worker,
)
from jackfield.errors import CheckpointError, RequestError
from jackfield.registry import Registry
from jackfield.testing.plugins import assert_conforms
from jackfield.testing.simulated_engine import Answer, SimulatedEngine
from jackfield.testing.simulated_worker import SimulatedWorker, continuation

PROMPTS: Sequence[Sequence[int]] = ([1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [1, 2, 3])
VOCABULARY = 97


def simulated_plan(**changes: object) -> WorkerPlan:
    """A small plan; ``changes`` are fields of ``WorkerPlan``."""
    values: dict[str, object] = {
        "model": "simulated",
        "config": {"vocab_size": VOCABULARY},
        "device": "cpu",
        "dtype": "float32",
        "max_model_len": 64,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 16,
        "block_size": 4,
        "num_blocks_override": 64,
        **changes,
    }
    return WorkerPlan(**values)  # type: ignore[arg-type]


def answers(worker: Worker | Executor, plan: WorkerPlan, capacity: KVCapacity) -> list[Answer]:
    """What the prompts are answered with, all of them at once, and the same once more."""
    limits = SchedulerLimits(plan.max_num_seqs, plan.max_num_batched_tokens, plan.max_model_len)
    scheduler = Registry().load("schedulers", "fcfs")(limits)
    engine = SimulatedEngine(
        scheduler,
        limits,
        num_blocks=capacity.num_blocks,
        block_size=plan.block_size,
        steps_in_flight=capacity.steps_in_flight,
        vocabulary=capacity.logits_width,
        worker=worker,
        num_first_blocks=2,
    )
    for _ in range(2):
        # The second time over memory that the rest has given back, where the worker does that.
        for prompt in PROMPTS:
            engine.add(prompt, 6)
        engine.run()
        engine.check_empty()
        engine.rest()
    return list(engine.answers.values())


class WorkerContract:
    """Laws that hold for every worker."""

    worker: ClassVar[Callable[[], Worker]]

    def plan(self) -> WorkerPlan:
        """What it is started with: small, and for a checkpoint that it can load."""
        return simulated_plan()

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("workers", type(self).worker)

    def test_requests_get_their_tokens(self) -> None:
        plan, worker = self.plan(), type(self).worker()
        capacity = worker.start(plan)
        assert capacity.num_blocks >= 2 and capacity.steps_in_flight >= 1
        given = answers(worker, plan, capacity)
        worker.stop()
        for answer in given:
            assert answer.finish == FinishReason.LENGTH, answer.message
            assert len(answer.token_ids) == 6
            assert all(0 <= token < capacity.logits_width for token in answer.token_ids)
        texts = [answer.token_ids for answer in given]
        assert texts[0] == texts[3], "equal prompts, other greedy tokens"
        assert texts[:4] == texts[4:], "the same prompts after a rest, other greedy tokens"

    def test_a_sequence_under_a_mask_gets_what_its_own_mask_allows(self) -> None:
        plan, worker = self.plan(), type(self).worker()
        width = worker.start(plan).logits_width
        worker.begin(_prompts(2, plan.block_size))
        bits = np.zeros((plan.max_num_seqs, width // 32 + 1), np.int32)
        for slot, allowed in enumerate((7, 5)):
            bits[slot, 0] = 1 << allowed
        second = np.ones(1, np.int32)
        masks = TokenMasks(places=second, slots=second, are_new=np.ones(1, np.bool_), bits=bits)
        output = worker.finish(masks).wait()
        worker.stop()
        assert output.token_ids[1] == 5 and not output.failed


class ExecutorContract:
    """Laws that hold for every executor."""

    executor: ClassVar[Callable[[], Executor]]

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("executors", type(self).executor)

    def test_it_runs_the_plans_worker(self) -> None:
        plan = simulated_plan(worker=class_path(SimulatedWorker))
        executor = type(self).executor()
        capacity = executor.start(plan)
        given = answers(executor, plan, capacity)
        executor.stop()
        for prompt, answer in zip([*PROMPTS, *PROMPTS], given, strict=True):
            assert answer.token_ids == continuation(prompt, 6, VOCABULARY)

    def test_methods_of_its_workers_can_be_called(self) -> None:
        executor = type(self).executor()
        if not isinstance(executor, CallsWorkers):
            pytest.skip("the executor calls no methods of its workers")
        worker, extension = class_path(SimulatedWorker), class_path(Adding)
        executor.start(simulated_plan(worker=worker, worker_extension=extension))
        results = executor.collective_rpc("add", None, [2], {"more": 3})
        assert results and set(map(repr, results)) == {"5"}
        for method in ("execute", "no_such_method"):
            with pytest.raises(RequestError, match=method):
                executor.collective_rpc(method)
        executor.stop()

    def test_what_the_worker_says_at_its_start_is_passed_on(self) -> None:
        executor = type(self).executor()
        with pytest.raises(CheckpointError, match="no such checkpoint"):
            executor.start(simulated_plan(worker=class_path(RefusingWorker)))
        executor.stop()


class Adding:
    """What is mixed into a worker."""

    def add(self, one: int, more: int = 0) -> int:
        """The sum."""
        return one + more


class RefusingWorker(SimulatedWorker):
    """Does not start."""

    def start(self, plan: WorkerPlan) -> KVCapacity:
        """Raises."""
        raise CheckpointError("no such checkpoint")


def _prompts(count: int, block_size: int) -> ScheduledBatch:
    """A step of as many prompts, each whole."""
    ids, num_blocks = np.array([1, 2, 3], np.int32), -(-3 // block_size)
    blocks = [
        (row, index, 1 + row * num_blocks + index)
        for row in range(count)
        for index in range(num_blocks)
    ]
    return ScheduledBatch(
        step=1,
        admitted=tuple(AdmittedRow(row, ids, 3, TokenSampling()) for row in range(count)),
        rows=np.arange(count, dtype=np.int32),
        num_tokens=np.full(count, 3, np.int32),
        first_positions=np.zeros(count, np.int32),
        samples=np.ones(count, np.bool_),
        new_blocks=np.array(blocks, np.int32),
    )


def class_path(found: type[object]) -> str:
    """``module:Class``."""
    return f"{found.__module__}:{found.__qualname__}"
