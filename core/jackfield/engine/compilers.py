"""Processes that compile kernels while the engine starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from jackfield.config.environment import child_environment
from jackfield.config.plan import WorkerPlan

_MAIN = "jackfield.compute.kernels.compile_process"
_FEWEST = 2
"""Fewer are not faster than the engine's own threads."""
_KEPT = 2
"""Processors for the engine and the API process."""


@contextmanager
def compilers(plan: WorkerPlan) -> Iterator[WorkerPlan]:
    """The plan with up to ``max_compilers`` compilers that a worker may use inside. They import
    torch while the engine does, so that none waits for the other."""
    num = min(plan.max_compilers, num_processors() - _KEPT)
    if num < _FEWEST:
        yield plan
        return
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(num)]
    child = _spawn([theirs for _, theirs in pairs])
    try:
        yield msgspec.structs.replace(plan, compilers=tuple(ours.fileno() for ours, _ in pairs))
    finally:
        for ours, _ in pairs:
            ours.close()
        # What it has forked sees the sockets close; it may itself be importing still.
        child.kill()
        child.wait()


def _spawn(sockets: list[socket.socket]) -> subprocess.Popen[bytes]:
    descriptors = [each.fileno() for each in sockets]
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", _MAIN, *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        stdout=2,
        env=child_environment(num_threads=1),
        pass_fds=descriptors,
        # Ctrl-C in a terminal is for the parent's parent, which ends this one.
        start_new_session=True,
    )
    for each in sockets:
        each.close()
    return child


def num_processors() -> int:
    """Logical processors that this process may run on; 0 where compilers cannot be forked."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 0
