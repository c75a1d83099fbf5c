"""The control groups of Linux that this process is in: limits of memory and processors are theirs.

Files: cgroups(7), and the kernel's cgroup-v2.rst and cgroup-v1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def directories(controller: str, proc: Path = PROC, groups: Path = GROUPS) -> Iterator[Path]:
    """Where the files of a controller may lie, of each group and those around it; some may not be
    there. A group of version 1 has files of other names than one of version 2."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = groups / controller if controllers else groups
        own = PurePosixPath(path)
        for group in (own, *own.parents):
            yield base / group.relative_to("/")
