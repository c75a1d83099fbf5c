"""What serving launches compiles for other GPUs than Hopper, and fits there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("capability", ["8 6", "12 0"])
def test_kernels_compile_and_find_room(capability: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.compute.kernels.other_gpus", *capability.split()],
        env=os.environ | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
