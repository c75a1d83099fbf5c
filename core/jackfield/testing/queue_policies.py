"""The laws of a queue policy. Subclass ``QueuePolicyContract`` in a test file::

    class TestMine(QueuePolicyContract):
        policy = MyPolicy

They are those of a scheduler: the kit runs the bundled scheduler that takes policies with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jackfield.contracts.scheduling import (
    QueuePolicy,
    Quota,
    QuotaPolicy,
    Scheduler,
    SchedulerLimits,
)
from jackfield.registry import Registry
from jackfield.testing.plugins import assert_conforms
from jackfield.testing.schedulers import SchedulerContract
from jackfield.testing.simulated_worker import continuation

SCHEDULER = "queue"


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """A request as a policy sees it."""

    key: int = 1
    priority: int = 0
    user: str | None = None
    arrival: float = 1.0
    num_prompt_tokens: int = 8
    num_tokens: int = 8
    num_computed_tokens: int = 0
    num_in_flight: int = 0


class QueuePolicyContract(SchedulerContract):
    """Laws that hold for every queue policy, beside those of the scheduler that obeys it."""

    policy: ClassVar[Callable[[], QueuePolicy]]

    def make(self, limits: SchedulerLimits) -> Scheduler:
        """The scheduler that takes policies, with a new one of the policy under test."""
        scheduler: Scheduler = Registry().load("schedulers", SCHEDULER)(limits, self.new_policy())
        return scheduler

    def new_policy(self) -> QueuePolicy:
        """A policy as an engine makes it."""
        return type(self).policy()

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("queue_policies", type(self).policy)

    def test_preempted_requests_come_back(self) -> None:
        """Whether any is preempted depends on the quotas."""
        engine = self.engine(num_blocks=18)
        for start in range(8):
            engine.add([start], max_tokens=60)
        engine.run()
        for start, answer in enumerate(engine.answers.values()):
            assert answer.token_ids == continuation([start], 60, engine.vocabulary)
        engine.check_empty()

    def test_a_key_is_numbers_that_can_be_compared(self) -> None:
        policy = self.new_policy()
        keys = [
            policy.key(WaitingRequest(key, priority, user, num_prompt_tokens=length))
            for key, (priority, user, length) in enumerate(
                [(0, None, 1), (3, "a", 4000), (-1, "b", 7), (0, "a", 2)]
            )
        ]
        assert all(isinstance(key, tuple) for key in keys)
        assert all(math.isfinite(part) for key in keys for part in key)
        assert len({len(key) for key in keys}) == 1, "keys of different lengths"

    def test_a_quota_lets_somebody_run(self) -> None:
        policy = self.new_policy()
        if not isinstance(policy, QuotaPolicy):
            return
        for user in (None, "a"):
            quota = policy.quota(WaitingRequest(user=user))
            assert quota is None or (isinstance(quota, Quota) and quota.max_running >= 1)
