"""The processes that compile kernels live as long as the start, and no longer."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest
from tests.waiting import wait_until

from jackfield.config.plan import WorkerPlan
from jackfield.engine import compilers

PLAN = WorkerPlan(
    model="none",
    config={},
    device="cuda",
    dtype="bfloat16",
    max_model_len=1,
    max_num_seqs=1,
    max_num_batched_tokens=1,
    block_size=1,
    max_compilers=3,
)


@pytest.fixture(autouse=True)
def triton_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return tmp_path


def compiler_pids() -> set[int]:
    """Of this process' compilers, and of the one that forks them."""
    lines = Path("/proc").glob("[0-9]*/cmdline")
    mark = b"jackfield.compute.kernels.compile_process"
    mine = f"JACKFIELD_TEST={os.getpid()}".encode()
    found = set()
    for file in lines:
        try:
            if mark in file.read_bytes() and mine in (file.parent / "environ").read_bytes():
                found.add(int(file.parent.name))
        except OSError:
            continue
    return found


def test_machines_of_few_processors_compile_in_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "num_processors", lambda: 3)
    with compilers.compilers(PLAN) as plan:
        assert plan == PLAN


def test_there_are_as_many_as_asked_for_and_they_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "num_processors", lambda: 64)
    with compilers.compilers(PLAN) as plan:
        assert len(plan.compilers) == 3
        for descriptor in plan.compilers:
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                connection.send(b"no variant")
                assert b"UnpicklingError" in connection.recv(1 << 12)


def test_all_end_with_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "num_processors", lambda: 64)
    monkeypatch.setenv("JACKFIELD_TEST", str(os.getpid()))
    with compilers.compilers(PLAN):
        wait_until(lambda: len(compiler_pids()) == 4)
    wait_until(lambda: not compiler_pids())


def test_they_end_where_the_start_fails_before_they_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compilers, "num_processors", lambda: 64)
    monkeypatch.setenv("JACKFIELD_TEST", str(os.getpid()))
    with pytest.raises(RuntimeError, match="no weights"), compilers.compilers(PLAN):
        raise RuntimeError("no weights")
    assert not compiler_pids()


def test_a_plan_that_an_engine_has_started_by_needs_none(
    triton_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilers, "num_processors", lambda: 64)
    with pytest.raises(RuntimeError), compilers.compilers(PLAN):
        raise RuntimeError("no start")
    with compilers.compilers(PLAN) as first:
        assert first.compilers
    with compilers.compilers(PLAN) as second:
        assert second == PLAN
    with compilers.compilers(msgspec.structs.replace(PLAN, block_size=2)) as other:
        assert other.compilers
    for note in triton_cache.iterdir():
        note.unlink()
    with compilers.compilers(PLAN) as again:
        assert again.compilers


def test_where_nothing_can_be_noted_a_start_goes_on(
    triton_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilers, "num_processors", lambda: 64)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(triton_cache / "missing"))
    with compilers.compilers(PLAN) as plan:
        assert plan.compilers
