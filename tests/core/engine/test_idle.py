"""What an engine does while it rests, and what that gives back."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable

import pytest

from jackfield.engine.idle import PAUSE_SECONDS, TRIM_SECONDS, WARM_UP_SECONDS, Idle

HOLES = """
import ctypes
from pathlib import Path
from jackfield.engine.idle import trim_heap

def resident_mib():
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines()
               if each.startswith("VmRSS"))
    return int(line.split()[1]) // 1024

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
libc.free.argtypes = (ctypes.c_void_p,)
places = [libc.malloc(50_000) for _ in range(4000)]
for place in places:
    libc.memset(place, 1, 50_000)
# Every eighth stays: the heap's end cannot move.
for number, place in enumerate(places):
    if number % 8 != 7:
        libc.free(place)
before = resident_mib()
trim_heap()
print(before - resident_mib())
"""


def trims(done: list[str], num_pieces: int = 1) -> Callable[[], bool]:
    """What gives memory back, in so many pieces each time."""
    left = num_pieces

    def trim() -> bool:
        nonlocal left
        done.append("trim")
        left = left - 1 or num_pieces
        return left < num_pieces

    return trim


def test_it_warms_up_once_and_trims_once_after_each_stretch_of_work() -> None:
    done: list[str] = []
    idle = Idle(lambda: done.append("warm"), trims(done))
    assert idle.patience_seconds == WARM_UP_SECONDS
    idle.waited(WARM_UP_SECONDS / 2)
    assert done == []
    idle.waited(WARM_UP_SECONDS)
    assert done == ["warm"]
    assert idle.patience_seconds is None
    idle.waited(2 * TRIM_SECONDS)
    assert done == ["warm"]
    idle.has_worked = True
    assert idle.patience_seconds == TRIM_SECONDS
    idle.waited(TRIM_SECONDS / 2)
    assert done == ["warm"]
    for _ in range(2):
        idle.waited(TRIM_SECONDS)
    assert done == ["warm", "trim"]
    assert idle.patience_seconds is None


def test_first_of_all_what_the_worker_can_prepare_is_done_in_pieces_between_requests() -> None:
    done: list[str] = []
    left = 2

    def prepare() -> bool:
        nonlocal left
        left -= 1
        done.append("piece" if left >= 0 else "none")
        return left >= 0

    idle = Idle(lambda: done.append("warm"), trims(done), prepare)
    for seconds in (PAUSE_SECONDS, PAUSE_SECONDS / 2, PAUSE_SECONDS, PAUSE_SECONDS):
        # Something that comes in the pause is served first.
        assert idle.patience_seconds == PAUSE_SECONDS
        idle.waited(seconds)
    assert done == ["piece", "piece", "none"]
    assert idle.patience_seconds == WARM_UP_SECONDS
    idle.waited(WARM_UP_SECONDS)
    assert done == ["piece", "piece", "none", "warm"]

    left = 1
    idle.prepare_again()
    for _ in range(2):
        assert idle.patience_seconds == PAUSE_SECONDS
        idle.waited(PAUSE_SECONDS)
    assert done[4:] == ["piece", "none"]
    assert idle.patience_seconds is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc to give pages back")
def test_holes_in_the_heap_go_back_to_the_system() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", HOLES], stdout=subprocess.PIPE, timeout=60, check=True
    ).stdout
    # 3,500 holes of 12 whole pages.
    assert int(shown) > 120


def test_without_a_warm_up_it_waits_for_work_and_trims_behind_it() -> None:
    done: list[str] = []
    idle = Idle(None, trims(done))
    assert idle.patience_seconds is None
    idle.has_worked = True
    assert idle.patience_seconds == TRIM_SECONDS
    idle.waited(TRIM_SECONDS)
    assert done == ["trim"]


def test_memory_is_given_back_in_pieces_between_requests() -> None:
    done: list[str] = []
    idle = Idle(None, trims(done, 3))
    idle.has_worked = True
    idle.waited(TRIM_SECONDS)
    assert idle.patience_seconds == PAUSE_SECONDS
    # A request comes: the engine rests anew behind it.
    idle.waited(PAUSE_SECONDS / 2)
    idle.has_worked = True
    assert idle.patience_seconds == TRIM_SECONDS
    idle.waited(PAUSE_SECONDS)
    assert done == ["trim"]
    idle.waited(TRIM_SECONDS)
    assert idle.patience_seconds == PAUSE_SECONDS
    idle.waited(PAUSE_SECONDS)
    assert done == ["trim"] * 3
    assert idle.patience_seconds is None
