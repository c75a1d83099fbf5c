"""First come, first served."""

from __future__ import annotations

from typing import ClassVar

from jackfield.contracts.scheduling import SchedulerRequest
from jackfield_schedulers.token_budget import TokenBudgetScheduler
from jackfield_schedulers.waiting import Order


class FcfsScheduler(TokenBudgetScheduler):
    """Serves requests in the order of their arrival."""

    name: ClassVar[str] = "fcfs"
    api_version: ClassVar[int] = 1

    def order(self, request: SchedulerRequest) -> Order:
        """By arrival."""
        return (request.arrival, request.key)
