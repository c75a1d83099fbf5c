"""Main program of the engine process: ``python -m jackfield.engine.process SOCKET PULSE MODULE...``

Spawned by its parent, never forked. It ends when it is told to, and when the socket closes,
because then the parent is gone. Until its plan comes it imports the modules.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import time

from jackfield.config.bytecode import keep_bytecode
from jackfield.engine.early_imports import EarlyImports
from jackfield.engine.garbage_collection import collect_rarely

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Serves until the end; the exit status is 1 after ``EngineFailed`` was sent."""
    began = time.monotonic()
    keep_bytecode()
    # Terminals and service managers signal the whole group. When this process ends is the
    # parent's decision: it may be draining.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()
    # Looking for garbage takes a tenth of the time that imports take.
    collect_rarely()
    path, pulse, *names = arguments
    early = EarlyImports(names)
    # Imported here so that --explain-startup can tell imports from the interpreter's start.
    from jackfield.engine.serving import serve

    return serve(path, int(pulse), began, early.phases)


def die_with_parent() -> None:
    """A second belt beside the socket: the parent may be killed while this process is busy."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
