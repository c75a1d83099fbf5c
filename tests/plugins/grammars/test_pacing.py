from __future__ import annotations

import time

import pytest

from jackfield_grammars.pacing import Pace


def ways_taken(monkeypatch: pytest.MonkeyPatch, serial: float, shared: float) -> list[str]:
    """Which way each of 400 batches of 32 takes, where one costs so many seconds."""
    now = 0.0
    taken: list[str] = []

    def work(name: str, seconds: float) -> str:
        nonlocal now
        now += seconds * 32
        taken.append(name)
        return name

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    pace = Pace(16)
    for _ in range(400):
        result = pace.run(32, lambda: work("serial", serial), lambda: work("shared", shared))
        assert result == taken[-1]
    return taken


@pytest.mark.parametrize(("serial", "shared", "better"), [(5, 2, "shared"), (2, 5, "serial")])
def test_the_faster_way_is_taken_and_the_other_tried_seldom(
    monkeypatch: pytest.MonkeyPatch, serial: float, shared: float, better: str
) -> None:
    taken = ways_taken(monkeypatch, serial, shared)
    assert taken.count(better) > 370
    assert set(taken[50:]) == {"serial", "shared"}


def test_few_are_never_shared() -> None:
    pace = Pace(16)
    assert {pace.run(15, lambda: "serial", lambda: "shared") for _ in range(50)} == {"serial"}


def test_a_change_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now, costs, taken = 0.0, {"serial": 2.0, "shared": 5.0}, []

    def work(name: str) -> None:
        nonlocal now
        now += costs[name]
        taken.append(name)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    pace = Pace(16)
    for turn in range(2000):
        if turn == 200:
            costs["shared"] = 1.0
        pace.run(64, lambda: work("serial"), lambda: work("shared"))
    assert taken[-200:].count("shared") > 190
