"""An engine's process that has no plan yet: what it must import takes longer than to make one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jackfield.config.environment import child_environment
from jackfield.errors import ConfigError

# A unix socket's path has room for 103 bytes (macOS; Linux: 107), and the longest name in it,
# "/jackfield-12345678/clients", takes 27.
MAX_DIRECTORY_BYTES = 76


@contextmanager
def early_engine() -> Iterator[SpawnedEngine]:
    """An engine's process that imports torch until somebody takes it, which ends if nobody does.
    To be called in the main thread."""
    with first_spawn():
        spawned = SpawnedEngine(early=("torch",))
    try:
        yield spawned
    finally:
        spawned.discard()


@contextmanager
def first_spawn() -> Iterator[None]:
    """``ConfigError`` where the system has no process, file or disk for what a program starts with:
    nothing is served yet for which it would be asked again."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"no process can be started: {error}") from error


class SpawnedEngine:
    """``process`` connects to ``listener`` in ``directory`` (mode 0700) and waits for its plan.

    It beats on a pipe whose reading end is ``pulse``. Linux ends it with the *thread* that made
    this object. ``num_threads`` is for libraries that compute, 0: as many as they choose; it
    imports ``early`` (modules) meanwhile. Whoever sets ``is_taken`` owns all of it.
    """

    def __init__(self, num_threads: int = 0, early: tuple[str, ...] = ()) -> None:
        self.launched = time.monotonic()
        self.num_threads = num_threads
        self.is_taken = False
        with ExitStack() as undo:
            self.directory = _socket_directory()
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            self.pulse, beats = os.pipe()
            undo.callback(os.close, self.pulse)
            try:
                path = str(Path(self.directory) / "engine")
                self.listener.bind(path)
                self.listener.listen(1)
                # -P: the working directory is on the path only if it is on ours.
                module = ("-P", "-m", "jackfield.engine.process")
                self.process = subprocess.Popen(
                    [sys.executable, *module, path, str(beats), *early],
                    stdin=subprocess.DEVNULL,
                    # Libraries that print must not print into the program's own output.
                    stdout=2,
                    env=_environment(num_threads),
                    pass_fds=(beats,),
                )
            finally:
                os.close(beats)
            self._undo = undo.pop_all()

    def discard(self) -> None:
        """Ends the process, unless somebody else owns it."""
        if self.is_taken:
            return
        self.is_taken = True
        self.process.kill()
        self.process.wait()
        self._undo.close()


def _environment(num_threads: int) -> dict[str, str]:
    environment = child_environment(num_threads)
    # The child finds every module that this process finds (plugins given as module:Class).
    environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return environment


def _socket_directory() -> str:
    """A new directory that only this user can enter."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > MAX_DIRECTORY_BYTES:
        base = "/tmp"
    return tempfile.mkdtemp(prefix="jackfield-", dir=base)
