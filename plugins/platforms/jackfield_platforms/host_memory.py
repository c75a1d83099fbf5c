"""How much main memory there is for this process: the machine's, or what its control groups leave.

Files: proc_meminfo(5), and the kernel's cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jackfield.compute.control_groups import GROUPS, PROC, directories

_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Of versions 2 and 1."""


def free_and_total(proc: Path = PROC, groups: Path = GROUPS) -> tuple[int, int]:
    """Bytes. Free is what can be had without swapping: files that nobody has mapped count."""
    free, total = _machine(proc)
    for limit, used in _limits(proc, groups):
        total = min(total, limit)
        free = min(free, max(limit - used, 0))
    return free, total


def _machine(proc: Path) -> tuple[int, int]:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        kibibytes = {name: int(value) for name, value, *_ in map(str.split, lines)}
        return kibibytes["MemAvailable:"] << 10, kibibytes["MemTotal:"] << 10
    except (OSError, KeyError):  # not Linux
        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page


def _limits(proc: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of each control group that this process is in, the outer ones too."""
    for group in directories("memory", proc, groups):
        for names in _FILES:
            found = _limit(group, *names)
            if found is not None:
                yield found


def _limit(group: Path, limit: str, used: str, unused: str) -> tuple[int, int] | None:
    """None where the group has no limit, or is not to be seen from here."""
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return None
        statistics = dict(x.split() for x in (group / "memory.stat").read_text().splitlines())
        held = int((group / used).read_text()) - int(statistics.get(unused, 0))
        return int(most), max(held, 0)
    except OSError:
        return None
