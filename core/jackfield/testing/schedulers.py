"""The laws of a scheduler. Subclass ``SchedulerContract`` in a test file::

class TestMine(SchedulerContract):
    scheduler = MyScheduler
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from jackfield.contracts.messages import FinishReason
from jackfield.contracts.scheduling import (
    Blocks,
    Schedule,
    Scheduler,
    SchedulerLimits,
    SchedulerRequest,
)
from jackfield.testing.plugins import assert_conforms
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield.testing.simulated_worker import continuation

LIMITS = SchedulerLimits(max_num_seqs=8, max_num_batched_tokens=16, max_model_len=96)


class CheckedScheduler:
    """Passes every call on to a scheduler and asserts the contract around it."""

    name: ClassVar[str] = "checked"
    api_version: ClassVar[int] = 1

    def __init__(self, inner: Scheduler, limits: SchedulerLimits) -> None:
        self._inner = inner
        self._limits = limits
        self._known: dict[int, SchedulerRequest] = {}
        self._running: set[int] = set()
        self.num_preempted = 0

    def add(self, request: SchedulerRequest) -> None:
        """A new request."""
        self._known[request.key] = request
        self._inner.add(request)

    def finish(self, request: SchedulerRequest) -> None:
        """A request that the scheduler has."""
        assert self._known.pop(request.key) is request
        self._running.discard(request.key)
        self._inner.finish(request)
        self._check_counts()

    def schedule(self, blocks: Blocks) -> Schedule:
        """One decision, checked."""
        before = {key: request.num_computed_tokens for key, request in self._known.items()}
        in_flight = {key for key, request in self._known.items() if request.num_in_flight}
        schedule = self._inner.schedule(blocks)
        preempted = {request.key for request in schedule.preempted}
        self.num_preempted += len(preempted)
        keys = [request.key for request, _ in schedule.entries]
        assert len(set(keys)) == len(keys), "a request stands in a step twice"
        assert set(keys) <= self._known.keys(), "an unknown or finished request is scheduled"
        assert not preempted & set(keys), "a request is preempted and scheduled at once"
        assert preempted <= self._known.keys()
        for key in preempted:
            assert self._known[key].num_computed_tokens == 0, "preempted, but not released"
        admitted = set(keys) - self._running
        assert not admitted & in_flight, "admitted though a token is in flight"
        for request, num_tokens in schedule.entries:
            num_left = request.num_tokens - request.num_computed_tokens
            assert 1 <= num_tokens <= num_left, f"{num_tokens} tokens of {num_left}"
            if request.key in self._running:
                assert request.num_computed_tokens == before[request.key]
            if not self._limits.enable_chunked_prefill:
                assert num_tokens == num_left, "a prompt is cut though chunks are off"
        total = sum(num_tokens for _, num_tokens in schedule.entries)
        assert total <= self._limits.max_num_batched_tokens, "over the token budget"
        self._running = (self._running - preempted) | set(keys)
        assert len(self._running) <= self._limits.max_num_seqs, "more than max_num_seqs"
        self._check_counts()
        return schedule

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def num_waiting(self) -> int:
        """As the scheduler says."""
        return self._inner.num_waiting

    def _check_counts(self) -> None:
        assert len(self._inner) == len(self._known)
        assert self._inner.num_waiting == len(self._known) - len(self._running)


class SchedulerContract:
    """Tests that hold for every scheduler. They run the engine's own loop, with a worker that
    notices wrong blocks, and compare each answer with what the prompt alone determines."""

    scheduler: ClassVar[type[Scheduler]]
    keeps_order_of_arrival: ClassVar[bool] = False
    """Whether, of equal requests, the one that came first gets its first token first."""

    def make(self, limits: SchedulerLimits) -> Scheduler:
        """The scheduler under test."""
        return self.scheduler(limits)

    def engine(
        self, limits: SchedulerLimits = LIMITS, *, num_blocks: int = 64, steps_in_flight: int = 2
    ) -> SimulatedEngine:
        """An engine with the scheduler under test, every decision checked."""
        checked = CheckedScheduler(self.make(limits), limits)
        return SimulatedEngine(
            checked, limits, num_blocks=num_blocks, steps_in_flight=steps_in_flight
        )

    def run_mixed(self, engine: SimulatedEngine, seed: int, count: int = 40) -> None:
        """Requests of all lengths that come while others run; every answer must be right."""
        rng = random.Random(seed)
        prompts: list[Sequence[int]] = []
        wanted: list[int] = []
        while len(prompts) < count or engine.core.has_work:
            for _ in range(rng.randrange(4) if len(prompts) < count else 0):
                length = rng.choice((1, 2, 7, 16, 17, 40))
                prompts.append([rng.randrange(engine.vocabulary) for _ in range(length)])
                wanted.append(rng.randint(1, 24))
                user = rng.choice((None, "ann", "bob"))
                engine.add(prompts[-1], wanted[-1], priority=rng.randrange(3), user=user)
            engine.step()
            assert engine.num_steps < 100_000, "requests do not end"
        for prompt, num_tokens, answer in zip(
            prompts, wanted, engine.answers.values(), strict=True
        ):
            assert answer.finish == FinishReason.LENGTH
            assert answer.token_ids == continuation(prompt, num_tokens, engine.vocabulary)
        engine.check_empty()

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("schedulers", type(self).scheduler)

    def test_every_request_gets_its_tokens(self) -> None:
        for steps_in_flight in (1, 2):
            self.run_mixed(self.engine(steps_in_flight=steps_in_flight), seed=steps_in_flight)

    def test_every_request_ends_when_blocks_are_short(self) -> None:
        for steps_in_flight in (1, 2):
            engine = self.engine(num_blocks=18, steps_in_flight=steps_in_flight)
            self.run_mixed(engine, seed=10 + steps_in_flight)

    def test_preempted_requests_come_back(self) -> None:
        engine = self.engine(num_blocks=18)
        for start in range(8):
            engine.add([start], max_tokens=60)
        engine.run()
        assert isinstance(engine.scheduler, CheckedScheduler)
        assert engine.scheduler.num_preempted, "eight requests cannot share 17 blocks"
        for start, answer in enumerate(engine.answers.values()):
            assert answer.token_ids == continuation([start], 60, engine.vocabulary)
        engine.check_empty()

    def test_a_prompt_is_computed_whole_where_chunks_are_off(self) -> None:
        limits = replace(LIMITS, max_num_batched_tokens=96, enable_chunked_prefill=False)
        self.run_mixed(self.engine(limits), seed=20)

    def test_limits_for_long_prompts_delay_but_starve_nobody(self) -> None:
        for num_partial, num_long in ((1, 1), (3, 1), (3, 2)):
            limits = replace(
                LIMITS,
                long_prefill_token_threshold=5,
                max_num_partial_prefills=num_partial,
                max_long_partial_prefills=num_long,
            )
            self.run_mixed(self.engine(limits), seed=30 + num_partial)

    def test_one_request_at_a_time(self) -> None:
        self.run_mixed(self.engine(replace(LIMITS, max_num_seqs=1)), seed=40, count=12)

    def test_requests_can_finish_in_any_state(self) -> None:
        rng = random.Random(50)
        engine = self.engine(num_blocks=24)
        for _ in range(300):
            engine.add([rng.randrange(97) for _ in range(rng.randint(1, 40))], rng.randint(1, 20))
            alive = list(engine.core.requests)
            engine.abort(rng.sample(alive, k=min(len(alive), rng.randrange(3))))
            engine.step()
        engine.abort(list(engine.core.requests))
        engine.run()
        engine.check_empty()
        assert all(answer.finish for answer in engine.answers.values())

    def test_equal_requests_are_served_in_order_of_arrival(self) -> None:
        if not self.keeps_order_of_arrival:
            pytest.skip("this scheduler promises no order")
        engine = self.engine(num_blocks=18)
        for arrival in range(20):
            engine.add([arrival] * 20, 6, arrival=float(arrival))
        engine.run()
        first_steps = [answer.first_step for answer in engine.answers.values()]
        assert first_steps == sorted(first_steps)
