"""Small models compute with few threads, large ones with every physical core."""

from pathlib import Path

import pytest

from jackfield_workers import threads
from jackfield_workers.threads import physical_cores, quotas, threads_for


def test_small_weights_are_not_shared_out() -> None:
    assert threads_for(0) == 1
    assert threads_for(3 << 20) == 1


def test_large_weights_take_every_core() -> None:
    assert threads_for(8 << 30) == physical_cores()


def test_two_threads_of_a_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for processor, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        topology = tmp_path / f"cpu{processor}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(threads, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(threads, "quotas", list)
    for usable, count in (({0, 1, 2, 3}, 2), ({0, 2}, 1), ({0, 1, 7}, 3)):
        monkeypatch.setattr(threads, "usable_processors", lambda usable=usable: usable)
        assert physical_cores() == count


@pytest.mark.parametrize(("limits", "count"), [([], 8), ([2], 2), ([3, 1], 1), ([0], 1), ([64], 8)])
def test_the_least_quota_bounds_the_threads(
    limits: list[int], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(threads, "quotas", lambda: limits)
    monkeypatch.setattr(threads, "usable_processors", lambda: set(range(8)))
    assert physical_cores() == count


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, [2]),
        ("0::/", {"cpu.max": "10000 100000"}, [1]),
        ("0::/", {"cpu.max": "max 100000"}, []),
        ("0::/", {"cpu.max": "nonsense"}, []),
        # A service of systemd in a slice; the root has no such file.
        (
            "0::/a.slice/b.service",
            {"a.slice/cpu.max": "400000 100000", "a.slice/b.service/cpu.max": "100000 50000"},
            [2, 4],
        ),
        # Version 1, as a container sees it: its own group is the root.
        (
            "4:cpuacct,cpu:/docker/x\n0::/",
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            [3],
        ),
        ("4:cpuacct,cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("", {}, []),
    ],
)
def test_quotas_of_all_groups_around_the_process_count(
    own: str, files: dict[str, str], wanted: list[int], tmp_path: Path
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert quotas(tmp_path, tmp_path / "groups") == wanted


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quotas(tmp_path, tmp_path) == []
