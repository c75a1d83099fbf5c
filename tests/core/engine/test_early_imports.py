"""What is imported while there is no plan, and how torch's libraries come in."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.waiting import wait_until

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


WAITS = """
import pathlib, time
for _ in range(500):
    if pathlib.Path({file!r}).exists():
        break
    time.sleep(0.01)
"""


def test_modules_are_imported_in_a_thread_and_what_cannot_be_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "early_broken.py").write_text("1 / 0\n")
    goes_on = tmp_path / "goes_on"
    (tmp_path / "early_whole.py").write_text(WAITS.format(file=str(goes_on)))
    monkeypatch.syspath_prepend(tmp_path)
    before = time.monotonic()
    early = EarlyImports(("early_missing", "early_broken", "early_whole"))
    assert len(early.phases) < 3, "whoever asks waits for the imports"
    goes_on.touch()
    wait_until(lambda: len(early.phases) == 3)
    assert "early_whole" in sys.modules
    assert "early_broken" not in sys.modules
    name, began, ended = early.phases[-1]
    assert name == "import early_whole"
    assert before <= began <= ended <= time.monotonic()


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
