"""What an engine's process imports while it has no plan yet: torch, most of a start."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib.machinery import PathFinder

# In the order and with the visibility that torch gives them.
_LIBRARIES = (
    ("libtorch_global_deps.so", "RTLD_GLOBAL"),
    ("libc10.so", "RTLD_LOCAL"),
    ("libtorch_cpu.so", "RTLD_LOCAL"),
    ("libtorch_cuda.so", "RTLD_LOCAL"),
)


class EarlyImports:
    """Imports ``names`` in a thread that begins at once."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.phases: list[tuple[str, float, float]] = []
        """Of what has been imported: the name, and from when to when in monotonic seconds."""
        threading.Thread(target=self._import_all, name="early imports", daemon=True).start()

    def _import_all(self) -> None:
        if "torch" in self._names:
            load_libraries()
        for name in self._names:
            began = time.monotonic()
            # Whoever needs what cannot be imported will say so.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
            self.phases.append((f"import {name}", began, time.monotonic()))


def load_libraries() -> None:
    """Loads torch's libraries by the system's own call: 0.3 to 0.5 s that an import would hold
    Python's lock for, in which others import now. What is wrong with them torch tells."""
    torch = PathFinder.find_spec("torch")
    if sys.platform != "linux" or torch is None or torch.origin is None:
        return
    folder = os.path.join(os.path.dirname(torch.origin), "lib")
    load = ctypes.CDLL(None).dlopen
    load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    for name, visibility in _LIBRARIES:
        # One that is not there is skipped: it belongs to another build.
        load(os.fsencode(os.path.join(folder, name)), os.RTLD_NOW | getattr(os, visibility))
