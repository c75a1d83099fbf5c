"""The engine's process as its parent owns it: spawned, given its plan, waited for."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from jackfield.config.environment import child_environment
from jackfield.config.plan import EnginePlan
from jackfield.engine.channel import FrameEncoder, StartEngine
from jackfield.errors import EngineError

# A unix socket's path has room for 107 bytes.
MAX_DIRECTORY_BYTES = 90
ACCEPT_SECONDS = 0.1
_TAKEN = -1


class EngineProcess:
    """The child, owned by one thread that spawns it, sends it its plan, and waits for its end.

    One thread for all three, alive as long as the child: Linux sends a child its death signal
    when the *thread* that spawned it ends. A shared child listens at ``clients_path`` once it
    serves.
    """

    def __init__(self, plan: EnginePlan, *, is_shared: bool = False) -> None:
        self.clients_path = ""
        self._is_shared = is_shared
        self.connection: concurrent.futures.Future[socket.socket] = concurrent.futures.Future()
        self.status: concurrent.futures.Future[int] = concurrent.futures.Future()
        # Running futures cannot be cancelled by an impatient waiter, only finished by the thread.
        self.connection.set_running_or_notify_cancel()
        self.status.set_running_or_notify_cancel()
        self._plan = plan
        self._child: concurrent.futures.Future[subprocess.Popen[bytes]] = (
            concurrent.futures.Future()
        )
        self._pulse, self._child_pulse = os.pipe()
        thread = threading.Thread(target=self._own_child, name="engine process", daemon=True)
        thread.start()
        self.pid = self._child.result().pid

    def take_pulse(self) -> int:
        """The reading end of the pipe that the child beats on; who takes it closes it."""
        pulse, self._pulse = self._pulse, _TAKEN
        return pulse

    def discard(self) -> None:
        """Closes what nobody has taken of a child that has ended; once more does nothing."""
        if self._pulse != _TAKEN:
            os.close(self.take_pulse())
        if self.connection.done() and self.connection.exception() is None:
            self.connection.result().close()

    def signal(self, number: int) -> None:
        """Sends a signal to the child if it still runs."""
        self._child.result().send_signal(number)

    def _own_child(self) -> None:
        launched = time.monotonic()
        try:
            directory = _socket_directory()
            listener, child = _spawn(directory, self._plan, self._child_pulse)
        except BaseException as error:
            os.close(self.take_pulse())
            self._child.set_exception(error)
            return
        finally:
            os.close(self._child_pulse)
        self._child.set_result(child)
        try:
            with listener:
                connection = _accept(listener, child)
            start = StartEngine(self._plan, launched)
            if self._is_shared:
                self.clients_path = str(Path(directory) / "clients")
                start = msgspec.structs.replace(start, clients_path=self.clients_path)
            else:
                # Once connected nobody needs the name any more.
                shutil.rmtree(directory, ignore_errors=True)
            connection.sendall(FrameEncoder().encode(start))
            self.connection.set_result(connection)
        except OSError:
            status = child.wait()
            self.connection.set_exception(
                EngineError(f"the engine process {describe(status)} before it could start")
            )
        status = child.wait()
        shutil.rmtree(directory, ignore_errors=True)
        self.status.set_result(status)


def describe(status: int) -> str:
    """How a process ended, by the status that ``Popen`` has of it."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _socket_directory() -> str:
    """A new directory that only this user can enter (mode 0700)."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > MAX_DIRECTORY_BYTES:
        base = "/tmp"
    return tempfile.mkdtemp(prefix="jackfield-", dir=base)


def _spawn(
    directory: str, plan: EnginePlan, pulse: int
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    path = str(Path(directory) / "engine")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1)
    environment = child_environment(plan.worker.num_threads)
    # The child finds every module that this process finds (plugins given as module:Class).
    environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # -P: the working directory is on the path only if it is on ours.
    command = [sys.executable, "-P", "-m", "jackfield.engine.process", path, str(pulse)]
    # Libraries that print must not print into the program's own output.
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=2, env=environment, pass_fds=(pulse,)
    )
    return listener, child


def _accept(listener: socket.socket, child: subprocess.Popen[bytes]) -> socket.socket:
    """The child's connection; ``ConnectionError`` if it ended before it made one."""
    listener.settimeout(ACCEPT_SECONDS)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if child.poll() is not None:
                raise ConnectionError from None
        else:
            connection.setblocking(True)
            return connection
