"""What is imported while there is no plan, and how torch's libraries come in."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jackfield.engine import early_imports
from jackfield.engine.early_imports import EarlyImports

LOADED = """
import sys
from jackfield.engine.early_imports import load_libraries
load_libraries()
maps = open("/proc/self/maps").read()
print("libtorch_cpu.so" in maps, "libtorch_python.so" in maps, "torch" in sys.modules)
import torch
print((torch.ones(8, 8) @ torch.ones(8, 8)).sum().item())
"""


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def test_modules_are_imported_in_a_thread_and_what_cannot_be_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "early_broken.py").write_text("1 / 0\n")
    (tmp_path / "early_whole.py").write_text("import time; time.sleep(0.2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = time.monotonic()
    early = EarlyImports(("early_missing", "early_broken", "early_whole"))
    assert time.monotonic() - before < 0.2
    assert eventually(lambda: len(early.phases) == 3)
    assert "early_whole" in sys.modules
    assert "early_broken" not in sys.modules
    name, began, ended = early.phases[-1]
    assert name == "import early_whole"
    assert before <= began <= ended - 0.2 <= time.monotonic()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's way to load libraries")
def test_torchs_libraries_are_there_before_torch_is_and_torch_works_over_them() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=120, check=True
    )
    assert shown.stdout.split() == ["True", "False", "False", "512.0"]


def test_an_installation_without_libraries_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    early_imports.load_libraries()
