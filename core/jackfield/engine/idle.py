"""What an engine does once it has had nothing to do for a while."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

PAUSE_SECONDS = 0.02
"""After so long without work the worker does what can be done in pieces, one after each pause."""
WARM_UP_SECONDS = 0.5
"""After so long without work, what requests may need later is loaded; once."""
TRIM_SECONDS = 5.0
"""After so long memory that is not needed goes back to the system; after each stretch of work."""


class Idle:
    """Asked how long the engine may sleep, and told when it has slept for nothing, or worked."""

    def __init__(
        self,
        warm_up: Callable[[], None] | None,
        trim: Callable[[], bool],
        prepare: Callable[[], bool] | None = None,
    ) -> None:
        """Without ``warm_up`` nothing is loaded before it is needed. ``prepare`` does a piece of
        what the worker will need, and says whether there was one; ``trim`` a piece of giving back
        what is not needed, and whether there may be more."""
        self._prepare = prepare
        self._is_prepared = prepare is None
        self._warm_up = warm_up
        self._trim = trim
        self._is_warm = warm_up is None
        self._is_trimming = False
        self.has_worked = False
        """Set by the loop with each step."""

    def prepare_again(self) -> None:
        """The worker has lost what it had prepared: it has slept."""
        self._is_prepared = self._prepare is None

    @property
    def patience_seconds(self) -> float | None:
        """How long to wait at most; None: until something comes."""
        if not self._is_prepared:
            return PAUSE_SECONDS
        if not self._is_warm:
            return WARM_UP_SECONDS
        if not self.has_worked:
            return None
        return PAUSE_SECONDS if self._is_trimming else TRIM_SECONDS

    def waited(self, seconds: float) -> None:
        """Called after each wait, whether or not something came."""
        if not self._is_prepared:
            assert self._prepare is not None
            self._is_prepared = seconds >= PAUSE_SECONDS and not self._prepare()
        elif not self._is_warm:
            if seconds >= WARM_UP_SECONDS:
                assert self._warm_up is not None
                self._is_warm = True
                self._warm_up()
        elif self.has_worked:
            has_rested = seconds >= (PAUSE_SECONDS if self._is_trimming else TRIM_SECONDS)
            self._is_trimming = has_rested and self._trim()
            self.has_worked = self._is_trimming or not has_rested


def trim_heap() -> None:
    """Gives the pages of freed memory back to the system, where the C library can (glibc); some
    milliseconds. Kernels that are made for a shape and dropped again, and buffers of every size
    between them, leave holes that the heap would keep."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
