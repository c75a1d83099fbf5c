"""The environment of child processes."""

from __future__ import annotations

import pytest

from jackfield.config.environment import child_environment


def test_threads_spin_shortly_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert child_environment()["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert child_environment()["GOMP_SPINCOUNT"] == "7"


def test_the_number_of_threads_is_set_only_where_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in child_environment()
    assert child_environment(3)["OMP_NUM_THREADS"] == "3"


def test_a_child_inherits_the_environment_but_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_VARIABLE", "some value")
    monkeypatch.setenv("JACKFIELD_API_KEY", "secret")
    environment = child_environment()
    assert environment["SOME_VARIABLE"] == "some value"
    assert "secret" not in environment.values()
