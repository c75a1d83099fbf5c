"""The environment of child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

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


PRODUCTS = """
import ctypes, torch

class Heap(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = Heap
torch.set_num_threads(1)
weight = torch.ops.mkldnn._reorder_linear_weight(torch.ones(64, 64), 32)
for num_rows in range(1, 601):
    torch.ops.mkldnn._linear_pointwise(torch.ones(num_rows, 64), weight, None, "none", [], "")
    torch.bmm(torch.ones(2, num_rows, 64), torch.ones(2, 64, 8))
    if num_rows in (200, 600):
        print(libc.mallinfo2().uordblks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc what its heap holds")
def test_products_of_ever_new_shapes_do_not_fill_the_memory() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", PRODUCTS],
        env={**child_environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        timeout=100,
        check=True,
    ).stdout
    early, late = map(int, shown.split())
    assert late - early < 8 << 20


KEPT = """
import json
from jackfield.config.environment import child_environment, keep_bytecode
keep_bytecode()
import torch
child = child_environment()
print(json.dumps([child.get("PYTHONPYCACHEPREFIX"), child.get("PYTHONDONTWRITEBYTECODE")]))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A torch without compiled modules."""
    package = tmp_path / "installed" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("number = 1\n")
    return package


def run_with(installed: Path, **variables: str) -> list[str | None]:
    """What children are told, after torch was imported."""
    cache = installed.parents[1] / "cache"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"):
        environment.pop(name, None)
    search = [str(installed.parent), *filter(None, [environment.get("PYTHONPATH")])]
    environment.update(variables, PYTHONPATH=os.pathsep.join(search))
    done = subprocess.run(
        [sys.executable, "-c", KEPT], env=environment, capture_output=True, text=True, check=True
    )
    said: list[str | None] = json.loads(done.stdout)
    return said


def compiled(folder: Path) -> list[str]:
    return [file.name.partition(".")[0] for file in folder.rglob("*.pyc")]


def test_compiled_modules_that_nobody_would_keep_are_kept_in_the_cache(installed: Path) -> None:
    cache = installed.parents[1] / "cache" / "jackfield" / "bytecode"
    assert run_with(installed, PYTHONDONTWRITEBYTECODE="1") == [str(cache), None]
    assert compiled(cache) == ["__init__"]
    assert compiled(installed) == []
    # Found there by the next process, whose children are told the same.
    changed = time.time() - 100
    (file,) = cache.rglob("*.pyc")
    os.utime(file, (changed, changed))
    prefix = {"PYTHONPYCACHEPREFIX": str(cache)}
    for variables in ({"PYTHONDONTWRITEBYTECODE": "1"}, prefix):
        assert run_with(installed, **variables) == [str(cache), None]
    assert abs(file.stat().st_mtime - changed) < 1


def test_an_installation_that_keeps_them_is_left_alone(installed: Path) -> None:
    assert run_with(installed) == [None, None]
    assert compiled(installed) == ["__init__"]
    assert run_with(installed, PYTHONDONTWRITEBYTECODE="1") == [None, "1"]


def test_a_place_that_the_user_chose_is_left_alone(installed: Path, tmp_path: Path) -> None:
    chosen = {"PYTHONPYCACHEPREFIX": str(tmp_path / "mine"), "PYTHONDONTWRITEBYTECODE": "1"}
    assert run_with(installed, **chosen) == [chosen["PYTHONPYCACHEPREFIX"], "1"]
