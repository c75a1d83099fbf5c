"""Continuous batching in the order of a queue policy, within its quotas."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from jackfield.contracts.scheduling import (
    QueuePolicy,
    Quota,
    QuotaPolicy,
    SchedulerLimits,
    SchedulerRequest,
)
from jackfield.errors import ConfigError, RequestError
from jackfield_schedulers.token_budget import TokenBudgetScheduler
from jackfield_schedulers.waiting import Order, WaitingRequests


class QueueScheduler(TokenBudgetScheduler):
    """Asks the policy once a request.

    A request whose group is at its quota leaves the queue when its turn comes. The first of those
    set aside comes back whenever one of its group leaves: a step pays nothing for the others.
    """

    name: ClassVar[str] = "queue"
    api_version: ClassVar[int] = 1
    takes_queue_policy: ClassVar[bool] = True

    def __init__(self, limits: SchedulerLimits, policy: QueuePolicy | None = None) -> None:
        if policy is None:
            raise ConfigError("scheduler 'queue' needs a queue policy: --scheduling-policy NAME")
        super().__init__(limits)
        self._policy = policy
        self._orders: dict[int, Order] = {}
        self._quotas: dict[int, Quota] = {}
        self._num_running: Counter[str] = Counter()
        self._aside: dict[str, WaitingRequests] = {}
        """By group; none is empty."""
        self._num_aside = 0

    def order(self, request: SchedulerRequest) -> Order:
        """By the policy's key, then by arrival."""
        return self._orders[request.key]

    def sets_aside(self, request: SchedulerRequest) -> bool:
        """Where as many of its group run as may. O(log set aside)."""
        quota = self._quotas.get(request.key)
        if quota is None or self._num_running[quota.group] < quota.max_running:
            return False
        aside = self._aside.setdefault(quota.group, WaitingRequests())
        aside.add(self._orders[request.key], request)
        self._num_aside += 1
        return True

    def started(self, request: SchedulerRequest) -> None:
        """One more of its group."""
        if request.key in self._quotas:
            self._num_running[self._quotas[request.key].group] += 1

    def stopped(self, request: SchedulerRequest) -> None:
        """One less of its group: room for the next."""
        if request.key in self._quotas:
            group = self._quotas[request.key].group
            self._num_running[group] -= 1
            if not self._num_running[group]:
                del self._num_running[group]
            self._bring_back(request)

    # --- the contract ------------------------------------------------------------------

    def add(self, request: SchedulerRequest) -> None:
        """Asks the policy where it has not been asked yet. O(log waiting)."""
        if request.key not in self._orders:
            self._ask(request)
        super().add(request)

    def finish(self, request: SchedulerRequest) -> None:
        """Forgets a request, waiting, set aside or running."""
        aside = self._aside_with(request)
        if request in aside:
            aside.remove(request)
            self._one_less_aside(request)
        else:
            super().finish(request)
            # It may have been brought back for a place that it never took.
            self._bring_back(request)
        del self._orders[request.key]
        self._quotas.pop(request.key, None)

    def __len__(self) -> int:
        return super().__len__() + self._num_aside

    @property
    def num_waiting(self) -> int:
        """Requests without blocks."""
        return super().num_waiting + self._num_aside

    # --- the policy --------------------------------------------------------------------

    def _ask(self, request: SchedulerRequest) -> None:
        key = tuple(float(part) for part in self._policy.key(request))
        if any(part != part for part in key):
            raise ValueError(f"queue policy {self._policy.name!r} gave a key that is not a number")
        if isinstance(self._policy, QuotaPolicy):
            quota = self._policy.quota(request)
            if quota is not None and quota.max_running < 1:
                raise RequestError(f"no request of {quota.group} may run on this server")
            if quota is not None:
                self._quotas[request.key] = quota
        self._orders[request.key] = (*key, request.arrival, request.key)

    def _bring_back(self, request: SchedulerRequest) -> None:
        """The first of its group that was set aside, if any."""
        aside = self._aside_with(request)
        if aside.first() is not None:
            super().add(aside.pop())
            self._one_less_aside(request)

    def _aside_with(self, request: SchedulerRequest) -> WaitingRequests:
        """Those of its group that are set aside."""
        quota = self._quotas.get(request.key)
        aside = None if quota is None else self._aside.get(quota.group)
        return aside or WaitingRequests()

    def _one_less_aside(self, request: SchedulerRequest) -> None:
        self._num_aside -= 1
        group = self._quotas[request.key].group
        if not self._aside[group]:
            del self._aside[group]
