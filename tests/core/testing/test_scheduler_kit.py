"""The kit finds each way in which a scheduler can be wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jackfield.contracts.scheduling import Blocks, Schedule, SchedulerRequest
from jackfield.testing.schedulers import SchedulerContract
from jackfield_schedulers.fcfs import FcfsScheduler


class OverBudget(FcfsScheduler):
    """Ignores the budget of a step."""

    def schedule(self, blocks: Blocks) -> Schedule:
        self._limits = replace(self._limits, max_num_batched_tokens=17)
        return super().schedule(blocks)


class TooMany(FcfsScheduler):
    """Runs one sequence more than it may."""

    def schedule(self, blocks: Blocks) -> Schedule:
        self._limits = replace(self._limits, max_num_seqs=9)
        return super().schedule(blocks)


class Twice(FcfsScheduler):
    """Names a request twice."""

    def schedule(self, blocks: Blocks) -> Schedule:
        schedule = super().schedule(blocks)
        return Schedule(schedule.entries + schedule.entries[:1], schedule.preempted)


class Secretive(FcfsScheduler):
    """Does not say whom it preempted."""

    def schedule(self, blocks: Blocks) -> Schedule:
        return Schedule(super().schedule(blocks).entries)


class Forgetful(FcfsScheduler):
    """Loses those it preempted."""

    def schedule(self, blocks: Blocks) -> Schedule:
        schedule = super().schedule(blocks)
        for request in schedule.preempted:
            self.finish(request)
        return schedule


class Backwards(FcfsScheduler):
    """Serves the last one first."""

    def order(self, request: SchedulerRequest) -> tuple[float, ...]:
        return (-request.arrival, request.key)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (OverBudget, "test_every_request_gets_its_tokens"),
        (TooMany, "test_every_request_gets_its_tokens"),
        (Twice, "test_one_request_at_a_time"),
        (Secretive, "test_preempted_requests_come_back"),
        (Forgetful, "test_every_request_ends_when_blocks_are_short"),
        (Backwards, "test_equal_requests_are_served_in_order_of_arrival"),
    ],
)
def test_the_kit_refuses_a_broken_scheduler(broken: type[FcfsScheduler], law: str) -> None:
    kit = type("Kit", (SchedulerContract,), {"scheduler": broken, "keeps_order_of_arrival": True})
    with pytest.raises(AssertionError):
        getattr(kit(), law)()
