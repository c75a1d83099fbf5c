"""What the engine's loop says it has spent."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from jackfield.contracts.scheduling import SchedulerLimits
from jackfield.engine.step_clock import LAUNCH, STAGES, WAIT, StepClock
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield_schedulers.fcfs import FcfsScheduler


def clock_at(monkeypatch: pytest.MonkeyPatch, moments: list[float]) -> StepClock:
    times: Iterator[float] = iter(moments)
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    return StepClock()


def test_time_belongs_to_the_stage_that_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clock_at(monkeypatch, [10.0, 11.0, 15.0, 15.5])
    clock.mark(LAUNCH)
    clock.mark(WAIT)
    clock.mark(LAUNCH)
    expected = dict.fromkeys(STAGES, 0.0) | {"launch": 1.5, "wait": 4.0}
    assert clock.stage_seconds() == expected


def test_a_step_lasts_from_its_launch_or_from_the_end_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = clock_at(monkeypatch, [0.0, 8.0, 11.0, 21.0])
    clock.mark(WAIT)
    clock.step_over(began=6.0, num_tokens=9, has_prompts=True)
    clock.mark(WAIT)
    clock.step_over(began=7.0, num_tokens=8, has_prompts=False)
    clock.mark(WAIT)
    clock.step_over(began=20.0, num_tokens=20000, has_prompts=False)
    assert clock.num_steps() == {"decode": 2, "prompt": 1}
    assert clock.step_seconds() == {"decode": 3.0 + 1.0, "prompt": 2.0}
    assert clock.steps_by_size() == (0, 1, 1, *[0] * 10, 1)
    assert clock.num_tokens == 20017


@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_the_engine_tells_steps_by_kind_and_the_time_of_every_stage(steps_in_flight: int) -> None:
    limits = SchedulerLimits(max_num_seqs=4, max_num_batched_tokens=8, max_model_len=96)
    engine = SimulatedEngine(FcfsScheduler(limits), limits, steps_in_flight=steps_in_flight)
    before = time.perf_counter()
    engine.add(list(range(20)), 5)
    engine.run()
    stats = engine.stats
    assert stats is not None
    assert stats.steps_over == {"decode": 4, "prompt": 3}
    # 8, 8 and 4 tokens of the prompt, then one a step.
    assert stats.steps_by_size[:3] == (4, 3, 0) and stats.num_step_tokens == 24
    assert stats.stage_seconds.keys() == set(STAGES)
    assert all(stats.stage_seconds[name] > 0 for name in ("schedule", "build", "launch", "wait"))
    assert 0 < sum(stats.step_seconds.values()) <= time.perf_counter() - before
