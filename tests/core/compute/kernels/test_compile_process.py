"""Compilers begin before they are asked, and none does what another is doing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jackfield.compute.kernels.compile_process import Compiler, compute_capability
from jackfield.config.plan import WorkerPlan
from jackfield.engine import compilers

ROOT = Path(__file__).parents[4]


def test_what_the_plan_lets_expect_is_compiled_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(compilers, "_MAIN", "tests.core.compute.kernels.unasked")
    monkeypatch.setattr(compilers, "num_processors", lambda: 64)
    plan = WorkerPlan(
        model="none",
        config={"hidden_size": 512, "num_attention_heads": 4},
        device="cuda",
        dtype="bfloat16",
        max_model_len=1,
        max_num_seqs=1,
        max_num_batched_tokens=1,
        block_size=64,
        max_compilers=2,
    )
    with compilers.compilers(plan):
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*/*.cubin"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
    names = {file.stem for file in tmp_path.glob("*/*.cubin")}
    assert names == {"decode_kernel", "_hopper_kernel"}


@pytest.fixture
def compiler(tmp_path: Path) -> Iterator[Compiler]:
    with (tmp_path / "locks").open("w+b") as locks:
        yield Compiler(locks, has_driver=False)


def compile_in_processes(compiler: Compiler, variants: list[Any]) -> None:
    children = []
    for variant in variants:
        child = os.fork()
        if child == 0:
            compiler.compile_unasked([variant])
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def variant(key: str, log: Path) -> Any:
    def compile() -> None:
        for word in ("begin", "end"):
            with log.open("a") as file:
                file.write(f"{word}\n")
            time.sleep(0.3)

    return SimpleNamespace(key=lambda: key, compile=compile)


def test_a_variant_is_compiled_by_one_at_a_time(compiler: Compiler, tmp_path: Path) -> None:
    log = tmp_path / "log"
    compile_in_processes(compiler, [variant("a", log) for _ in range(3)])
    assert log.read_text().split() == ["begin", "end"] * 3


def test_others_do_not_wait_for_it(compiler: Compiler, tmp_path: Path) -> None:
    log = tmp_path / "log"
    compile_in_processes(compiler, [variant("a", log), variant("b", log)])
    assert log.read_text().split() == ["begin", "begin", "end", "end"]


def test_what_cannot_be_compiled_does_not_keep_the_next_from_it(
    compiler: Compiler, tmp_path: Path
) -> None:
    def fail() -> None:
        raise ValueError("no such layout")

    log = tmp_path / "log"
    broken: Any = SimpleNamespace(key=lambda: "a", compile=fail)
    compiler.compile_unasked([broken, variant("a", log)])
    assert log.read_text().split() == ["begin", "end"]


def test_where_no_driver_is_there_is_no_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert compute_capability() is None
