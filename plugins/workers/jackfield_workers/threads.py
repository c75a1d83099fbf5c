"""How many threads compute on the CPU."""

from __future__ import annotations

import os
from pathlib import Path

from jackfield.compute.control_groups import GROUPS, PROC, directories

_TOPOLOGY = Path("/sys/devices/system/cpu")

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
    return max(1, min([len(cores), *quotas()]))


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


def quotas(proc: Path = PROC, groups: Path = GROUPS) -> list[int]:
    """Limits of the control groups that this process is in, in processors, rounded up."""
    found = (_quota(group) for group in directories("cpu", proc, groups))
    return [quota for quota in found if quota is not None]


def _quota(group: Path) -> int | None:
    """None where the group has no limit, or is not to be seen from here."""
    try:
        if (group / "cpu.max").exists():
            limit, period = (group / "cpu.max").read_text().split()
        else:
            limit, period = (
                (group / name).read_text().strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        return None if limit in ("max", "-1") else -(-int(limit) // int(period))
    except (OSError, ValueError):
        return None
