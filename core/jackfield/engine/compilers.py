"""Processes that compile kernels while the engine starts."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from jackfield.config.environment import child_environment, triton_cache
from jackfield.config.plan import WorkerPlan

_MAIN = "jackfield.compute.kernels.compile_process"
_FEWEST = 2
"""Fewer are not faster than the engine's own threads."""
_KEPT = 2
"""Processors for the engine and the API process."""


@contextmanager
def compilers(plan: WorkerPlan) -> Iterator[WorkerPlan]:
    """The plan with up to ``max_compilers`` compilers that a worker may use inside. They need no
    torch, and are there before the engine has imported it.

    There are none if an engine has started by this plan before, with the same kernels: then they
    are all in Triton's cache. A note there says so, and goes with it.
    """
    num = min(plan.max_compilers, num_processors() - _KEPT)
    if num < _FEWEST or (note := _note(plan)).exists():
        yield plan
        return
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(num)]
    child = _spawn([theirs for _, theirs in pairs], plan)
    try:
        yield msgspec.structs.replace(plan, compilers=tuple(ours.fileno() for ours, _ in pairs))
        # Without a cache, or the right to write there, the next start compiles as this one.
        with suppress(OSError):
            note.touch()
    finally:
        for ours, _ in pairs:
            ours.close()
        # With what it has forked: that may compile what nobody has asked for.
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _note(plan: WorkerPlan) -> Path:
    kernels = Path(__file__).parents[1] / "compute" / "kernels"
    written = [(file.name, file.stat().st_mtime_ns) for file in sorted(kernels.glob("*.py"))]
    all_of_it = (_triton_version(), written, msgspec.json.encode(plan))
    digest = hashlib.sha256(repr(all_of_it).encode()).hexdigest()
    return triton_cache() / f"jackfield-{digest[:32]}"


def _triton_version() -> str:
    with suppress(PackageNotFoundError):  # some builds have another name
        return version("triton")
    return "unknown"


def _spawn(sockets: list[socket.socket], plan: WorkerPlan) -> subprocess.Popen[bytes]:
    descriptors = [each.fileno() for each in sockets]
    # No pipe: a plan may be larger than what one holds while nobody reads.
    with tempfile.TemporaryFile() as file:
        file.write(msgspec.json.encode(plan))
        file.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", _MAIN, *map(str, descriptors)],
            stdin=file,
            stdout=2,
            env=child_environment(num_threads=1),
            pass_fds=descriptors,
            # A group of its own. Ctrl-C in a terminal is for the parent's parent.
            start_new_session=True,
        )
    for each in sockets:
        each.close()
    return child


def num_processors() -> int:
    """Logical processors that this process may run on; 0 where compilers cannot be forked."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 0
