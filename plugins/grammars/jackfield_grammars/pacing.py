"""Whether work for many is done faster in threads than one after the other, as measured."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_TRY_EVERY = 64
_NUM_KEPT = 8


class Pace:
    """Does a kind of work in one of two ways, the one that took less time of late, and tries the
    other now and then. By the size of the batch: twice as many are another case."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._cases: dict[int, _Case] = {}

    def run(self, count: int, serial: Callable[[], T], shared: Callable[[], T]) -> T:
        """Does the work for ``count``; fewer than the least go one after the other."""
        if count < self._least:
            return serial()
        case = self._cases.setdefault(count.bit_length(), _Case())
        is_shared = case.is_shared()
        began = time.perf_counter()
        result = shared() if is_shared else serial()
        case.seconds[is_shared].append((time.perf_counter() - began) / count)
        return result


class _Case:
    """The last seconds for one, by whether they were shared out."""

    def __init__(self) -> None:
        self.seconds: tuple[deque[float], ...] = (deque(maxlen=_NUM_KEPT), deque(maxlen=_NUM_KEPT))
        self._num_calls = 0

    def is_shared(self) -> bool:
        """Which way to take now."""
        self._num_calls += 1
        serial, shared = self.seconds
        if len(serial) < _NUM_KEPT or len(shared) < _NUM_KEPT:
            return len(serial) == _NUM_KEPT
        # Medians: a way that is tried seldom is slow the first time.
        is_better = sorted(shared)[_NUM_KEPT // 2] < sorted(serial)[_NUM_KEPT // 2]
        turn = self._num_calls % _TRY_EVERY
        return is_better != (turn < 2)
