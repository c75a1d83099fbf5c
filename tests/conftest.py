"""Before anything is imported: Triton's interpreter where there is no GPU; threads that sleep; no
options but those that a test gives."""

from __future__ import annotations

import os
from pathlib import Path

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# As in the engine's process: threads that spin while they wait take a shared machine's time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

for variable in [name for name in os.environ if name.startswith("JACKFIELD_")]:
    del os.environ[variable]
