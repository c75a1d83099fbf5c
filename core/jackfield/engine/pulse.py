"""Whether an engine process is frozen: it tells its pulse over a pipe, and its parent listens.

Two things can stop. The whole process (SIGSTOP, a machine that swaps): then no pulse comes. Or
only the loop that computes steps (a device that hangs): then pulses come, and say that there is
work and that no turn of the loop has ended. A long prefill is neither: it is many steps, and while
one is computed the thread that sends the pulse goes on.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from dataclasses import dataclass

INTERVAL_SECONDS = 0.5
_RECORD = struct.Struct("<Q?")


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """How long an engine may be silent, and how long one step may take, in seconds."""

    heartbeat_seconds: float = 10.0
    step_seconds: float = 300.0


class Pulse:
    """The engine's end: a thread that writes ``turns`` and ``is_idle`` as they are now.

    The engine's loop sets both; a store to an attribute is all that it costs.
    """

    def __init__(self, descriptor: int) -> None:
        self.turns = 0
        self.is_idle = True
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def start(self) -> None:
        """Begins to beat; ends with the process, or when nobody listens any more."""
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def _beat(self) -> None:
        try:
            while True:
                os.write(self._descriptor, _RECORD.pack(self.turns, self.is_idle))
                time.sleep(INTERVAL_SECONDS)
        except OSError:
            os.close(self._descriptor)


class PulseWatch:
    """The parent's end: what was heard last, and whether that is too long ago."""

    def __init__(self, limits: WatchLimits) -> None:
        self._limits = limits
        self._rest = b""
        self._last: tuple[int, bool] = (0, True)
        self._heard = self._moved = self._checked = time.monotonic()

    def feed(self, data: bytes) -> None:
        """Bytes of the pipe, split anywhere."""
        data = self._rest + data
        whole = len(data) - len(data) % _RECORD.size
        self._rest = data[whole:]
        if not whole:
            return
        self._heard = now = time.monotonic()
        last = _RECORD.unpack_from(data, whole - _RECORD.size)
        if last != self._last or last[1]:
            self._moved = now
        self._last = last

    def complaint(self) -> str | None:
        """What is wrong, if something is. To be called about every ``INTERVAL_SECONDS``: a caller
        that was held up itself has not heard what there was to hear, and nothing is wrong."""
        now = time.monotonic()
        held_up = now - self._checked > 4 * INTERVAL_SECONDS
        self._checked = now
        if held_up:
            self._heard = self._moved = now
        if now - self._heard > self._limits.heartbeat_seconds:
            return f"the engine process gave no sign for {self._limits.heartbeat_seconds:g} s"
        if now - self._moved > self._limits.step_seconds:
            return f"a step of the engine took more than {self._limits.step_seconds:g} s"
        return None
