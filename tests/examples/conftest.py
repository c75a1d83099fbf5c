"""The clean environment that examples and tutorials are installed into."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from hatchling.build import build_wheel

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a clean environment with the six wheels. torch and the like come from
    this environment, by its path: nothing is downloaded, and no editable install is seen."""
    folder = tmp_path_factory.mktemp("environment")
    wheels = folder / "wheels"
    before = Path.cwd()
    for package in (ROOT, *EXAMPLES):
        os.chdir(package)
        try:
            build_wheel(str(wheels))
        finally:
            os.chdir(before)
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    made = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(made), "--disable-pip-version-check"]
    install = [*pip, "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, *map(str, wheels.glob("*.whl"))], check=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    (site / "this_environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made
