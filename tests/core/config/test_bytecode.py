"""Compiled modules are kept where an installation cannot keep them, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTED = """
import sys
from jackfield.config.bytecode import keep_bytecode
keep_bytecode()
compiled = []
sys.addaudithook(lambda event, args: event == "compile" and compiled.append(args[1]))
import torch.inner
print(torch.inner.number, sum("inner.py" in str(name) for name in compiled))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A torch of two modules, none of them compiled."""
    package = tmp_path / "installed" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("number = 1\n")
    return package


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "jackfield" / "bytecode"


def run_with(cache: Path, installed: Path, **variables: str) -> tuple[int, int]:
    """The number in torch's inner module, and how often that was compiled."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache.parents[1])}
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"):
        environment.pop(name, None)
    search = [str(installed.parent), *filter(None, [environment.get("PYTHONPATH")])]
    environment.update(variables, PYTHONPATH=os.pathsep.join(search))
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    number, times = map(int, done.stdout.split())
    return number, times


def compiled(folder: Path) -> list[str]:
    return sorted(file.name.partition(".")[0] for file in folder.rglob("*.pyc"))


NOT_WRITTEN = {"PYTHONDONTWRITEBYTECODE": "1"}


def test_what_nobody_would_keep_is_kept_in_the_cache_and_found_there(
    cache: Path, installed: Path
) -> None:
    assert run_with(cache, installed, **NOT_WRITTEN) == (1, 1)
    assert compiled(cache) == ["__init__", "inner"]
    assert compiled(installed) == []
    assert run_with(cache, installed, **NOT_WRITTEN) == (1, 0)


def test_a_source_that_has_changed_is_compiled_again(cache: Path, installed: Path) -> None:
    run_with(cache, installed, **NOT_WRITTEN)
    (installed / "inner.py").write_text("number = 22\n")
    assert run_with(cache, installed, **NOT_WRITTEN) == (22, 1)
    assert run_with(cache, installed, **NOT_WRITTEN) == (22, 0)


def test_a_file_that_is_damaged_is_made_again(cache: Path, installed: Path) -> None:
    run_with(cache, installed, **NOT_WRITTEN)
    (file,) = cache.rglob("inner*.pyc")
    file.write_bytes(file.read_bytes()[:6])
    assert run_with(cache, installed, **NOT_WRITTEN) == (1, 1)
    assert run_with(cache, installed, **NOT_WRITTEN) == (1, 0)


def test_where_there_is_no_place_for_a_cache_imports_go_on(cache: Path, installed: Path) -> None:
    cache.parents[1].touch()
    for _ in range(2):
        assert run_with(cache, installed, **NOT_WRITTEN) == (1, 1)


def test_an_installation_that_keeps_its_own_is_left_alone(cache: Path, installed: Path) -> None:
    assert run_with(cache, installed) == (1, 1)
    assert compiled(installed) == ["__init__", "inner"]
    assert run_with(cache, installed, **NOT_WRITTEN) == (1, 0)
    assert not cache.exists()


def test_a_place_that_the_user_chose_is_left_alone(
    cache: Path, installed: Path, tmp_path: Path
) -> None:
    chosen = {"PYTHONPYCACHEPREFIX": str(tmp_path / "mine")}
    assert run_with(cache, installed, **chosen, **NOT_WRITTEN) == (1, 1)
    assert not cache.exists()
