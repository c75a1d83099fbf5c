"""Distributions that are installed by lying in a folder on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def install(
    folder: Path,
    distribution: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str],
    version: str = "2.5",
) -> None:
    """``entry_points``: group without its prefix to name to value; ``modules``: name to code."""
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\nSummary: of a test\n"
    )
    lines = []
    for group, points in entry_points.items():
        lines += [f"[jackfield.{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)


def jackfield(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process that finds what lies in ``path``."""
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", "jackfield", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
