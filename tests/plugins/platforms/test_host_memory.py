"""Main memory as the kernel's files tell it: the machine's, and what control groups leave."""

from __future__ import annotations

import os
from pathlib import Path

from jackfield_platforms.host_memory import free_and_total

GIB = 1 << 30
MEMINFO = f"MemTotal: {32 * GIB >> 10} kB\nMemFree: 1 kB\nMemAvailable: {20 * GIB >> 10} kB\n"


def machine(root: Path, cgroup: str) -> tuple[Path, Path]:
    proc, groups = root / "proc", root / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "self" / "cgroup").write_text(cgroup)
    groups.mkdir()
    return proc, groups


def limit(group: Path, most: int | str, used: int, unused: int) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon {used - unused}\ninactive_file {unused}\n")


def test_without_groups_what_the_machine_can_give_is_free(tmp_path: Path) -> None:
    assert free_and_total(*machine(tmp_path, "0::/\n")) == (20 * GIB, 32 * GIB)


def test_the_tightest_group_counts_and_files_it_could_drop_are_free(tmp_path: Path) -> None:
    proc, groups = machine(tmp_path, "0::/outer/inner\n")
    limit(groups / "outer", 8 * GIB, 5 * GIB, GIB)
    limit(groups / "outer" / "inner", 6 * GIB, GIB, 0)
    assert free_and_total(proc, groups) == (4 * GIB, 6 * GIB)


def test_a_group_without_a_limit_leaves_the_machine(tmp_path: Path) -> None:
    proc, groups = machine(tmp_path, "0::/outer\n")
    limit(groups / "outer", "max", 5 * GIB, GIB)
    assert free_and_total(proc, groups) == (20 * GIB, 32 * GIB)


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    proc, groups = machine(tmp_path, "0::/\n")
    limit(groups, 2 * GIB, 3 * GIB, 0)
    assert free_and_total(proc, groups) == (0, 2 * GIB)


def test_groups_of_the_first_version_are_read_where_a_container_sees_them(tmp_path: Path) -> None:
    proc, groups = machine(tmp_path, "5:cpu,cpuacct:/x\n4:memory:/docker/0123\n0::/\n")
    (groups / "memory").mkdir()
    for name, value in (
        ("memory.limit_in_bytes", f"{3 * GIB}"),
        ("memory.usage_in_bytes", f"{2 * GIB}"),
        ("memory.stat", f"cache 0\ntotal_inactive_file {GIB}"),
    ):
        (groups / "memory" / name).write_text(value + "\n")
    assert free_and_total(proc, groups) == (2 * GIB, 3 * GIB)


def test_where_nothing_is_told_the_system_is_asked(tmp_path: Path) -> None:
    free, total = free_and_total(tmp_path, tmp_path)
    assert 0 < free <= total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
