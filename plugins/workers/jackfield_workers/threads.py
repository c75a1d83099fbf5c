"""How many threads compute on the CPU."""

from __future__ import annotations

import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")

_LEAST_BYTES = 16 << 20
"""Weights that a thread must have to itself: with less, sharing an operation out costs more than
it gives (a step of 3 MB of weights for 64 rows: 9 ms with one thread, 28 ms with two)."""


def threads_for(num_bytes: int) -> int:
    """Threads for a model with so many bytes of weights."""
    return max(1, min(physical_cores(), num_bytes // _LEAST_BYTES))


def physical_cores() -> int:
    """Physical cores that this process may use: two threads of one core share its arithmetic,
    and threads beyond a container's quota are stopped in the middle of a step."""
    usable = usable_processors()
    cores = {_core(processor) for processor in usable}
    quota = _quota(_QUOTA)
    return max(1, min(len(cores), quota or len(cores)))


def usable_processors() -> set[int]:
    """Numbers of the logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _core(processor: int) -> str:
    """What is the same for logical processors of one core; the number itself if unknown."""
    siblings = _TOPOLOGY / f"cpu{processor}" / "topology" / "thread_siblings_list"
    try:
        return siblings.read_text().strip()
    except OSError:
        return str(processor)


def _quota(path: Path) -> int | None:
    """A control group's limit in processors, rounded up; None if there is none."""
    try:
        limit, period = path.read_text().split()
        return None if limit == "max" else -(-int(limit) // int(period))
    except (OSError, ValueError):
        return None
