"""Before anything is imported: Triton kernels run in the interpreter where there is no GPU."""

from __future__ import annotations

import os
from pathlib import Path

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
