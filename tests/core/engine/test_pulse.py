"""A frozen engine is told from a busy one."""

from __future__ import annotations

import os

import pytest
from tests.waiting import wait_until

from jackfield.engine.pulse import Pulse, PulseWatch, WatchLimits


class Clock:
    """Time that only moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("jackfield.engine.pulse.time.monotonic", clock.monotonic)
    return clock


def record(turns: int, is_idle: bool) -> bytes:
    return turns.to_bytes(8, "little") + bytes([is_idle])


def wait(watch: PulseWatch, clock: Clock, seconds: float, data: bytes = b"") -> str | None:
    """Half a second after half a second with the same pulse; the first complaint."""
    for _ in range(round(seconds * 2)):
        clock.now += 0.5
        watch.feed(data)
        if (complaint := watch.complaint()) is not None:
            return complaint
    return None


def test_silence_is_noticed(clock: Clock) -> None:
    watch = PulseWatch(WatchLimits(heartbeat_seconds=5, step_seconds=60))
    assert wait(watch, clock, 30, record(1, True)) is None
    assert wait(watch, clock, 4.5) is None
    assert wait(watch, clock, 1) == "the engine process gave no sign for 5 s"


def test_a_step_that_takes_too_long_is_noticed_and_a_long_one_is_not(clock: Clock) -> None:
    watch = PulseWatch(WatchLimits(heartbeat_seconds=5, step_seconds=60))
    assert wait(watch, clock, 300, record(7, True)) is None
    assert wait(watch, clock, 59, record(8, False)) is None
    assert wait(watch, clock, 59, record(9, False)) is None
    assert wait(watch, clock, 3, record(9, False)) == "a step of the engine took more than 60 s"


def test_a_watch_that_was_held_up_itself_accuses_nobody(clock: Clock) -> None:
    watch = PulseWatch(WatchLimits(heartbeat_seconds=5, step_seconds=60))
    assert wait(watch, clock, 1, record(1, False)) is None
    clock.now += 500
    assert watch.complaint() is None
    assert wait(watch, clock, 4.5) is None


def test_records_may_be_split_anywhere(clock: Clock) -> None:
    watch = PulseWatch(WatchLimits(heartbeat_seconds=5, step_seconds=2))
    data = record(1, False) + record(2, False)
    for index in range(len(data)):
        watch.feed(data[index : index + 1])
    assert wait(watch, clock, 2) is None
    assert wait(watch, clock, 1) == "a step of the engine took more than 2 s"


def test_the_thread_tells_what_the_loop_set_and_ends_with_its_listener() -> None:
    reader, writer = os.pipe()
    pulse = Pulse(writer)
    pulse.turns, pulse.is_idle = 258, False
    pulse.start()
    assert os.read(reader, 9) == record(258, False)
    os.close(reader)
    wait_until(lambda: not is_open(writer))


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
