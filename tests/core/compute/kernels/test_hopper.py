"""What the interpreter cannot see: that the kernels compile for Hopper, and to what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MAX_SHARED_BYTES = 227 * 1024  # a program's, on compute capability 9.0

Rows = dict[str, list[dict[str, object]]]


def compile_served(cache: Path) -> Rows:
    command = [sys.executable, "-m", "tests.core.compute.kernels.hopper_variants"]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows: Rows = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        rows.setdefault(row["kernel"], []).append(row)
    return rows


def test_served_variants_compile_for_hopper_to_pipelined_tensor_core_loops(tmp_path: Path) -> None:
    rows = compile_served(tmp_path)
    everything = [row for group in rows.values() for row in group]
    assert all(int(str(row["shared_bytes"])) <= MAX_SHARED_BYTES for row in everything)
    assert all(int(str(row["spilled_bytes"])) <= 16 for row in everything)
    assert all(row["wgmma"] and row["pipelined"] for row in rows["_prefill_kernel"])
    assert all(row["mma"] and row["pipelined"] for row in rows["_decode_kernel"])
    assert any(row["wgmma"] for row in rows["_wide_kernel"])
    assert len(rows) == 9
