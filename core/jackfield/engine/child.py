"""The engine's process as its parent owns it: spawned, given its plan, waited for."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import msgspec

from jackfield.config.plan import EnginePlan
from jackfield.engine.channel import FrameEncoder, StartEngine
from jackfield.engine.spawning import SpawnedEngine
from jackfield.errors import EngineError

ACCEPT_SECONDS = 0.1
_TAKEN = -1


class EngineProcess:
    """The child, owned by one thread that spawns it, sends it its plan, and waits for its end.

    One thread for all three, alive as long as the child: Linux sends a child its death signal
    when the *thread* that spawned it ends. A child that is ``spawned`` already is taken, if its
    libraries have the plan's number of threads. A shared child listens at ``clients_path`` once it
    serves.
    """

    def __init__(
        self, plan: EnginePlan, spawned: SpawnedEngine | None = None, *, is_shared: bool = False
    ) -> None:
        self.clients_path = ""
        self._is_shared = is_shared
        self.connection: concurrent.futures.Future[socket.socket] = concurrent.futures.Future()
        self.status: concurrent.futures.Future[int] = concurrent.futures.Future()
        # Running futures cannot be cancelled by an impatient waiter, only finished by the thread.
        self.connection.set_running_or_notify_cancel()
        self.status.set_running_or_notify_cancel()
        self._plan = plan
        self._pulse = _TAKEN
        self._spawned: concurrent.futures.Future[SpawnedEngine] = concurrent.futures.Future()
        thread = threading.Thread(
            target=self._own_child, args=(spawned,), name="engine process", daemon=True
        )
        thread.start()
        self.pid = self._spawned.result().process.pid

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
        self._spawned.result().process.send_signal(number)

    def _own_child(self, spawned: SpawnedEngine | None) -> None:
        try:
            spawned = self._suitable(spawned)
        except BaseException as error:
            self._spawned.set_exception(error)
            return
        spawned.is_taken = True
        self._pulse = spawned.pulse
        self._spawned.set_result(spawned)
        child, directory = spawned.process, spawned.directory
        try:
            with spawned.listener:
                connection = _accept(spawned.listener, child)
            start = StartEngine(self._plan, spawned.launched)
            if self._is_shared:
                self.clients_path = str(Path(directory) / "clients")
                start = msgspec.structs.replace(start, clients_path=self.clients_path)
            else:
                # Once connected nobody needs the name any more.
                shutil.rmtree(directory, ignore_errors=True)
            try:
                connection.sendall(FrameEncoder().encode(start))
            except BaseException:
                connection.close()
                raise
            self.connection.set_result(connection)
        except OSError:
            status = child.wait()
            self.connection.set_exception(
                EngineError(f"the engine process {describe(status)} before it could start")
            )
        except BaseException as error:
            # The plan cannot be sent: whoever waits for the connection is told.
            child.kill()
            self.connection.set_exception(error)
        status = child.wait()
        shutil.rmtree(directory, ignore_errors=True)
        self.status.set_result(status)

    def _suitable(self, spawned: SpawnedEngine | None) -> SpawnedEngine:
        num_threads = self._plan.worker.num_threads
        if spawned is not None and spawned.num_threads == num_threads:
            return spawned
        if spawned is not None:
            spawned.discard()
        return SpawnedEngine(num_threads)


def describe(status: int) -> str:
    """How a process ended, by the status that ``Popen`` has of it."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


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
