"""The scheduler that obeys a queue policy: order, quotas, and policies that fail."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import ClassVar

import pytest

from jackfield.contracts.messages import FinishReason
from jackfield.contracts.scheduling import QueuePolicy, Quota, SchedulerLimits, SchedulerRequest
from jackfield.engine.request import Request
from jackfield.errors import ConfigError
from jackfield.testing import QueuePolicyContract
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield_schedulers.queue import QueueScheduler

LIMITS = SchedulerLimits(max_num_seqs=4, max_num_batched_tokens=16, max_model_len=96)


class ShortestFirst:
    name: ClassVar[str] = "shortest"
    api_version: ClassVar[int] = 1

    def key(self, request: SchedulerRequest) -> tuple[float, ...]:
        return (request.num_prompt_tokens,)


class OnePerUser(ShortestFirst):
    name: ClassVar[str] = "one_per_user"

    def quota(self, request: SchedulerRequest) -> Quota | None:
        return None if request.user is None else Quota(request.user, 1)


class TestShortestFirst(QueuePolicyContract):
    policy: ClassVar[Callable[[], QueuePolicy]] = ShortestFirst


class TestOnePerUser(QueuePolicyContract):
    policy: ClassVar[Callable[[], QueuePolicy]] = OnePerUser


def engine(policy: QueuePolicy, limits: SchedulerLimits = LIMITS) -> SimulatedEngine:
    return SimulatedEngine(QueueScheduler(limits, policy), limits, num_blocks=200)


def order_of_first_tokens(made: SimulatedEngine) -> list[int]:
    return sorted(made.answers, key=lambda key: (made.answers[key].first_step, key))


def test_the_lowest_key_goes_first() -> None:
    made = engine(ShortestFirst(), SchedulerLimits(1, 96, 96))
    for length in (30, 3, 12, 3):
        made.add([1] * length, 2)
    made.run()
    assert order_of_first_tokens(made) == [2, 4, 3, 1]


def test_a_group_at_its_quota_lets_others_pass_and_goes_on_when_one_ends() -> None:
    made = engine(OnePerUser())
    for user in ("ann", "ann", "ann", "bob"):
        made.add([1, 2], 5, user=user)
    made.step()
    assert (len(made.scheduler), made.scheduler.num_waiting) == (4, 2)
    made.run()
    assert order_of_first_tokens(made) == [1, 4, 2, 3]
    made.check_empty()


def test_a_request_set_aside_can_be_aborted_and_the_next_takes_its_turn() -> None:
    made = engine(OnePerUser())
    for _ in range(4):
        made.add([1, 2], 5, user="ann")
    made.step()
    made.abort([1, 2])
    made.run()
    assert [made.answers[key].finish for key in (1, 2, 3, 4)] == [
        FinishReason.ABORT,
        FinishReason.ABORT,
        FinishReason.LENGTH,
        FinishReason.LENGTH,
    ]
    made.check_empty()


def num_requests_kept() -> int:
    gc.collect()
    return sum(type(each) is Request for each in gc.get_objects())


def test_requests_that_leave_while_they_are_set_aside_are_not_kept() -> None:
    made = engine(OnePerUser())
    made.add([1], 40, user="ann")
    before = num_requests_kept()
    for _ in range(5):
        keys = [made.add([1, 2], 3, user="ann") for _ in range(200)]
        made.step()
        assert made.scheduler.num_waiting == 200
        made.abort(keys)
    assert made.answers[1].finish == FinishReason.RUNNING
    assert num_requests_kept() < before + 100


def test_aborting_the_one_brought_back_brings_the_next() -> None:
    limits = SchedulerLimits(max_num_seqs=1, max_num_batched_tokens=16, max_model_len=96)
    made = engine(OnePerUser(), limits)
    made.add([1], 3, user="ann")
    for _ in range(3):
        made.add([1, 2], 3, user="ann")
    made.add([1, 2, 3], 30, user="bob")
    while made.answers[1].finish == FinishReason.RUNNING:
        made.step()
    waiting = [key for key in (2, 3, 4) if not made.answers[key].token_ids]
    made.abort(waiting[:2])
    made.run()
    assert made.answers[waiting[-1]].finish == FinishReason.LENGTH
    made.check_empty()


@pytest.mark.parametrize("answer", [None, ("a",), (float("nan"),), 1, ValueError()])
def test_a_policy_that_fails_costs_that_request_alone(answer: object) -> None:
    class Odd(ShortestFirst):
        def key(self, request: SchedulerRequest) -> tuple[float, ...]:
            if request.user != "odd":
                return (1.0,)
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[return-value]

    made = engine(Odd())
    made.add([1], 3)
    made.add([1], 3, user="odd")
    made.add([1], 3)
    made.run()
    finishes = [each.finish for each in made.answers.values()]
    assert finishes == [FinishReason.LENGTH, FinishReason.ERROR, FinishReason.LENGTH]
    made.check_empty()


def test_it_needs_a_policy() -> None:
    with pytest.raises(ConfigError, match="--scheduling-policy"):
        QueueScheduler(LIMITS)
