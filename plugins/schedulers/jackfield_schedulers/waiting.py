"""Requests that wait for their turn, the first in order first."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from jackfield.contracts.scheduling import SchedulerRequest

Order = tuple[float, ...]


class WaitingRequests:
    """A heap by order, lowest first; the last element of an order is the request's key.

    What is removed stays in the heap until it comes up, or until such entries are the most of it:
    O(log waiting) a call, on the average.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[Order, SchedulerRequest]] = []
        self._keys: set[int] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, request: SchedulerRequest) -> bool:
        return request.key in self._keys

    def add(self, order: Order, request: SchedulerRequest) -> None:
        """One more."""
        self._keys.add(request.key)
        heappush(self._heap, (order, request))

    def first(self) -> SchedulerRequest | None:
        """Who is next; stays where it is."""
        while self._heap:
            request = self._heap[0][1]
            if request.key in self._keys:
                return request
            heappop(self._heap)
        return None

    def pop(self) -> SchedulerRequest:
        """Takes the one that ``first`` has given."""
        request = heappop(self._heap)[1]
        self._keys.remove(request.key)
        return request

    def remove(self, request: SchedulerRequest) -> None:
        """Takes one out of the middle."""
        self._keys.remove(request.key)
        if len(self._heap) > 2 * len(self._keys) + 64:
            self._heap = [entry for entry in self._heap if entry[1].key in self._keys]
            heapify(self._heap)
