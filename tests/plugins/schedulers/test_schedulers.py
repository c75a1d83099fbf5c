"""The bundled schedulers: the kit, and what each promises beyond it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import SchedulerLimits
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.prefix_hash import PrefixHasher
from jackfield.engine.request import Request
from jackfield.errors import ConfigError
from jackfield.testing.schedulers import SchedulerContract
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield_schedulers.fcfs import FcfsScheduler
from jackfield_schedulers.priority import PriorityScheduler


class TestFcfs(SchedulerContract):
    scheduler = FcfsScheduler
    keeps_order_of_arrival = True


class TestPriority(SchedulerContract):
    scheduler = PriorityScheduler
    keeps_order_of_arrival = True


LIMITS = SchedulerLimits(max_num_seqs=4, max_num_batched_tokens=32, max_model_len=64)


def test_a_better_priority_overtakes_the_queue() -> None:
    engine = SimulatedEngine(PriorityScheduler(LIMITS), LIMITS)
    keys = [engine.add([i] * 30, 4, priority=5) for i in range(6)]
    urgent = engine.add([50] * 30, 4, priority=1)
    engine.run()
    first = {key: answer.first_step for key, answer in engine.answers.items()}
    assert first[urgent] < min(first[key] for key in keys)


def test_the_order_stays_where_many_leave_while_they_wait() -> None:
    rng = random.Random(4)
    scheduler = PriorityScheduler(LIMITS)
    blocks = BlockManager(200, 4, None)
    prompt = np.ones(3, dtype="<i4").tobytes()
    waiting = [
        Request(key, prompt, TokenSampling(), 8, priority=rng.randrange(1000)) for key in range(400)
    ]
    for request in waiting:
        scheduler.add(request)
    rng.shuffle(waiting)
    while len(waiting) > 40:
        scheduler.finish(waiting.pop())
    taken: list[int] = []
    while scheduler.num_waiting:
        for begun, _ in scheduler.schedule(blocks).entries:
            assert isinstance(begun, Request)
            taken.append(begun.priority)
            scheduler.finish(begun)
            blocks.free(begun)
    assert len(taken) == 40
    assert taken == sorted(each.priority for each in waiting)


def test_a_better_priority_takes_blocks_from_a_worse_running_request() -> None:
    engine = SimulatedEngine(PriorityScheduler(LIMITS), LIMITS, num_blocks=11, block_size=4)
    low = engine.add([1] * 20, 18, priority=9)
    for _ in range(4):
        engine.step()
    urgent = engine.add([2] * 24, 4, priority=0)
    engine.run()
    assert engine.stats is not None and engine.stats.num_preemptions == 1
    assert len(engine.answers[low].token_ids) == 18
    assert engine.answers[urgent].first_step < 12


def test_a_prefix_that_a_victim_leaves_behind_is_not_computed_again() -> None:
    scheduler = PriorityScheduler(LIMITS)
    blocks = BlockManager(11, 4, PrefixHasher("sha256", 4, "m"))

    def make(key: int, length: int, priority: int) -> Request:
        prompt = np.ones(length, dtype="<i4").tobytes()
        return Request(key, prompt, TokenSampling(), 8, priority=priority)

    low, urgent = make(1, 30, 9), make(2, 33, 0)
    scheduler.add(low)
    assert scheduler.schedule(blocks).entries == ((low, 30),)
    low.num_computed_tokens = 30
    scheduler.add(urgent)
    schedule = scheduler.schedule(blocks)
    assert schedule.preempted == (low,)
    assert schedule.entries == ((urgent, 33 - 28),)
    assert urgent.num_computed_tokens == 28


def test_equal_priorities_take_nothing_from_each_other() -> None:
    engine = SimulatedEngine(PriorityScheduler(LIMITS), LIMITS, num_blocks=11, block_size=4)
    engine.add([1] * 20, 18, priority=1)
    for _ in range(4):
        engine.step()
    engine.add([2] * 24, 4, priority=1)
    engine.run()
    assert engine.stats is not None and engine.stats.num_preemptions == 0


def test_decodes_go_on_while_a_long_prompt_is_computed() -> None:
    limits = SchedulerLimits(max_num_seqs=4, max_num_batched_tokens=8, max_model_len=64)
    engine = SimulatedEngine(FcfsScheduler(limits), limits, steps_in_flight=1)
    short = engine.add([1, 2], 20)
    engine.step()
    long = engine.add([3] * 40, 2)
    for _ in range(5):
        engine.step()
    assert len(engine.answers[short].token_ids) == 6
    assert not engine.answers[long].token_ids
    engine.step()
    assert len(engine.answers[long].token_ids) == 1


def test_decodes_go_on_while_a_long_prompt_of_a_better_priority_is_computed() -> None:
    limits = SchedulerLimits(max_num_seqs=4, max_num_batched_tokens=8, max_model_len=64)
    engine = SimulatedEngine(PriorityScheduler(limits), limits, steps_in_flight=1)
    worse = [engine.add([start, 2], 20, priority=5) for start in range(3)]
    engine.step()
    long = engine.add([3] * 40, 2, priority=1)
    for _ in range(8):
        engine.step()
    assert [len(engine.answers[key].token_ids) for key in worse] == [9, 9, 9]
    assert len(engine.answers[long].token_ids) == 1


def test_a_short_prompt_passes_long_ones_that_wait_for_their_limit() -> None:
    limits = SchedulerLimits(
        max_num_seqs=8,
        max_num_batched_tokens=32,
        max_model_len=64,
        long_prefill_token_threshold=8,
        max_num_partial_prefills=2,
    )
    engine = SimulatedEngine(FcfsScheduler(limits), limits, steps_in_flight=1)
    long = [engine.add([start] * 40, 2) for start in range(2)]
    short = engine.add([9] * 4, 2)
    engine.step()
    assert engine.answers[short].first_step == 1
    assert [engine.core.requests[key].num_computed_tokens for key in long] == [8, 0]


def test_a_cap_for_long_prompts_alone_leaves_the_rest_of_a_step_to_the_next_ones() -> None:
    """As in vLLM, whose steps are full whatever the cap."""
    limits = replace(LIMITS, max_num_seqs=8, long_prefill_token_threshold=10)
    engine = SimulatedEngine(FcfsScheduler(limits), limits, steps_in_flight=1)
    keys = [engine.add([start] * 40, 2) for start in range(4)]
    engine.step()
    assert [engine.core.requests[key].num_computed_tokens for key in keys] == [10, 10, 10, 2]
    engine.run()
    engine.check_empty()


def test_prefills_share_the_budget_where_several_may_be_partial() -> None:
    limits = SchedulerLimits(
        max_num_seqs=8, max_num_batched_tokens=16, max_model_len=64, max_num_partial_prefills=2
    )
    engine = SimulatedEngine(FcfsScheduler(limits), limits, steps_in_flight=1)
    keys = [engine.add([start] * 32, 2) for start in range(2)]
    engine.step()
    assert [engine.core.requests[key].num_computed_tokens for key in keys] == [8, 8]


def test_whole_prompts_need_a_budget_of_the_context() -> None:
    limits = SchedulerLimits(
        max_num_seqs=8, max_num_batched_tokens=16, max_model_len=64, enable_chunked_prefill=False
    )
    with pytest.raises(ConfigError, match="max_num_batched_tokens"):
        FcfsScheduler(limits)


def test_a_whole_prompt_may_fill_a_step() -> None:
    limits = replace(LIMITS, max_num_batched_tokens=64, enable_chunked_prefill=False)
    scheduler = FcfsScheduler(limits)
    blocks = BlockManager(40, 4, None)
    prompt = np.ones(64, dtype="<i4").tobytes()
    filling, other = (Request(key, prompt, TokenSampling(), 8) for key in range(2))
    scheduler.add(filling)
    scheduler.add(other)
    assert scheduler.schedule(blocks).entries == ((filling, 64),)


def test_a_prompt_that_is_alone_may_have_a_longer_step() -> None:
    scheduler = FcfsScheduler(replace(LIMITS, max_num_batched_tokens=8, max_num_lone_tokens=20))
    blocks = BlockManager(40, 4, None)

    def add(key: int, length: int) -> None:
        prompt = np.ones(length, dtype="<i4").tobytes()
        scheduler.add(Request(key, prompt, TokenSampling(), 8, arrival=float(key)))

    def step() -> list[tuple[int, int]]:
        entries = scheduler.schedule(blocks).entries
        for request, num_tokens in entries:
            assert isinstance(request, Request)
            request.num_computed_tokens += num_tokens
        return [(request.key, num_tokens) for request, num_tokens in entries]

    add(1, 50)
    assert step() == [(1, 20)]
    add(2, 5)
    assert step() == [(1, 8)], "others wait: no longer than usual"
    assert step() == [(1, 8)]


def test_with_a_delay_prompts_wait_for_company_unless_nobody_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    scheduler = FcfsScheduler(replace(LIMITS, delay_factor=0.5))
    blocks = BlockManager(40, 4, None)

    def add(key: int) -> None:
        prompt = np.ones(5, dtype="<i4").tobytes()
        scheduler.add(Request(key, prompt, TokenSampling(), 8, arrival=now))

    def keys() -> list[int]:
        entries = scheduler.schedule(blocks).entries
        for request, num_tokens in entries:
            # What the step loop does with a step whose token is known.
            assert isinstance(request, Request)
            request.num_computed_tokens += num_tokens
            request.num_tokens += 1
        return [request.key for request, _ in entries]

    add(1)
    assert keys() == [1]
    now = 104.0  # the step with the prompt took 4 s: others wait for 2
    assert keys() == [1]
    add(2)
    now = 105.0
    add(3)
    assert keys() == [1]
    now = 106.5
    assert keys() == [1, 2, 3]
