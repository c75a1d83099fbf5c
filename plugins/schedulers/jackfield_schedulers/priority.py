"""The request with the lowest ``priority`` value first."""

from __future__ import annotations

from typing import ClassVar

from jackfield.contracts.scheduling import SchedulerRequest
from jackfield_schedulers.token_budget import TokenBudgetScheduler
from jackfield_schedulers.waiting import Order


class PriorityScheduler(TokenBudgetScheduler):
    """Lower values go first, equal ones in the order of their arrival.

    Where blocks run out, a waiting request takes those of running ones with a higher value.
    """

    name: ClassVar[str] = "priority"
    api_version: ClassVar[int] = 1

    def order(self, request: SchedulerRequest) -> Order:
        """By priority, then by arrival."""
        return (request.priority, request.arrival, request.key)

    def may_displace(self, waiting: SchedulerRequest, running: SchedulerRequest) -> bool:
        """A strictly better priority takes precedence."""
        return waiting.priority < running.priority
