"""The asyncio side of the process border: spawns the engine process and talks to it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from jackfield.config.environment import child_environment
from jackfield.config.plan import EnginePlan
from jackfield.contracts.messages import (
    EngineFailed,
    EngineReady,
    FromEngine,
    StepTokens,
    StopEngine,
    ToEngine,
)
from jackfield.engine.channel import FrameDecoder, FrameEncoder, StartEngine
from jackfield.errors import ConfigError, EngineError, JackfieldError

log = logging.getLogger(__name__)

# A unix socket's path has room for 107 bytes.
MAX_DIRECTORY_BYTES = 90
ACCEPT_SECONDS = 0.1
EXIT_SECONDS = 5.0


class EngineProcess:
    """The child, owned by one thread that spawns it, sends it its plan, and waits for its end.

    One thread for all three, alive as long as the child: Linux sends a child its death signal
    when the *thread* that spawned it ends.
    """

    def __init__(self, plan: EnginePlan) -> None:
        self.connection: concurrent.futures.Future[socket.socket] = concurrent.futures.Future()
        self.status: concurrent.futures.Future[int] = concurrent.futures.Future()
        # Running futures cannot be cancelled by an impatient waiter, only finished by the thread.
        self.connection.set_running_or_notify_cancel()
        self.status.set_running_or_notify_cancel()
        self._plan = plan
        self._child: concurrent.futures.Future[subprocess.Popen[bytes]] = (
            concurrent.futures.Future()
        )
        thread = threading.Thread(target=self._own_child, name="engine process", daemon=True)
        thread.start()
        self.pid = self._child.result().pid

    def signal(self, number: int) -> None:
        """Sends a signal to the child if it still runs."""
        self._child.result().send_signal(number)

    def _own_child(self) -> None:
        launched = time.monotonic()
        try:
            directory = _socket_directory()
            listener, child = _spawn(directory, self._plan)
        except BaseException as error:
            self._child.set_exception(error)
            return
        self._child.set_result(child)
        try:
            with listener:
                connection = _accept(listener, child)
            connection.sendall(FrameEncoder().encode(StartEngine(self._plan, launched)))
            self.connection.set_result(connection)
        except OSError:
            status = child.wait()
            self.connection.set_exception(
                EngineError(f"the engine process {_describe(status)} before it could start")
            )
        finally:
            # Once connected nobody needs the name any more.
            shutil.rmtree(directory, ignore_errors=True)
        self.status.set_result(child.wait())


class EngineClient:
    """One engine process, as the API process sees it."""

    def __init__(self, plan: EnginePlan) -> None:
        self._plan = plan
        self._process: EngineProcess | None = None
        self._protocol: _EngineProtocol | None = None
        self._encoder = FrameEncoder()

    @property
    def pid(self) -> int | None:
        """Process id of the engine; None before ``launch``."""
        return None if self._process is None else self._process.pid

    def launch(self) -> None:
        """Spawns the process and returns; needs no event loop. Idempotent."""
        if self._process is None:
            self._process = EngineProcess(self._plan)

    async def connect(
        self,
        on_step: Callable[[StepTokens], None],
        on_dead: Callable[[JackfieldError], None],
    ) -> EngineReady:
        """Waits until the engine is ready; ``ConfigError`` or ``EngineError`` if it never is.

        Afterwards ``on_step`` gets every step's tokens and ``on_dead``, once, the reason of an
        end that ``stop`` did not ask for; both in this event loop's thread.
        """
        self.launch()
        assert self._process is not None
        connection = await asyncio.wrap_future(self._process.connection)
        loop = asyncio.get_running_loop()
        _, self._protocol = await loop.create_unix_connection(
            lambda: _EngineProtocol(on_step, on_dead), sock=connection
        )
        self._protocol.watch = asyncio.create_task(self._watch(self._process, self._protocol))
        return await self._protocol.ready

    def send(self, message: ToEngine) -> None:
        """Hands a message to the engine; never blocks. After the engine's end it goes nowhere."""
        if self._protocol is not None:
            self._protocol.write(self._encoder.encode(message))

    async def stop(self, timeout: float = 5.0) -> None:
        """Ends the process: asks, and kills it if it has not ended in ``timeout`` seconds."""
        process = self._process
        if process is None:
            return
        protocol = self._protocol
        if protocol is not None:
            protocol.stopping = True
        if protocol is not None and protocol.serving:
            self.send(StopEngine())
        else:
            # It is still starting: it would not listen, and there is nothing to lose.
            process.signal(signal.SIGKILL)
        status = asyncio.wrap_future(process.status)
        try:
            await asyncio.wait_for(asyncio.shield(status), timeout)
        except TimeoutError:
            process.signal(signal.SIGKILL)
            await status
        if protocol is not None and protocol.watch is not None:
            await protocol.watch
        elif process.connection.done() and process.connection.exception() is None:
            process.connection.result().close()

    async def _watch(self, process: EngineProcess, protocol: _EngineProtocol) -> None:
        """Says how the process ended, after everything it said itself has been read."""
        status = asyncio.wrap_future(process.status)
        ends: list[asyncio.Future[Any]] = [status, protocol.closed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        # Either half of the end is followed by the other; a process that hung up but lives is
        # of no use.
        try:
            await asyncio.wait_for(asyncio.shield(status), EXIT_SECONDS)
        except TimeoutError:
            process.signal(signal.SIGKILL)
        code = await status
        try:
            await asyncio.wait_for(asyncio.shield(protocol.closed), EXIT_SECONDS)
        except TimeoutError:
            protocol.close()
        protocol.end(EngineError(f"the engine process {_describe(code)}"))


class _EngineProtocol(asyncio.Protocol):
    """Frames to callbacks."""

    def __init__(
        self,
        on_step: Callable[[StepTokens], None],
        on_dead: Callable[[JackfieldError], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[EngineReady] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.serving = False
        self.stopping = False
        self.watch: asyncio.Task[None] | None = None
        self._on_step = on_step
        self._on_dead = on_dead
        self._decoder: FrameDecoder[FromEngine] = FrameDecoder(FromEngine)
        self._transport: asyncio.Transport | None = None
        self._failure: JackfieldError | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast and no check: uvloop's transports are not asyncio's by inheritance.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data)
        except EngineError as error:
            self._failure = error
            self.close()
            return
        for message in messages:
            if isinstance(message, StepTokens):
                self._on_step(message)
            elif isinstance(message, EngineFailed):
                self._failure = _failure(message)
            else:
                self.serving = True
                if not self.ready.done():
                    self.ready.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def write(self, frame: bytes | bytearray) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def end(self, fallback: EngineError) -> None:
        """The process is gone: its own words, or else ``fallback``, to whoever waits."""
        if self._ended:
            return
        self._ended = True
        failure = self._failure or fallback
        if not self.ready.done():
            self.ready.set_exception(failure)
        elif not self.stopping:
            self._on_dead(failure)


def _failure(message: EngineFailed) -> JackfieldError:
    return ConfigError(message.message) if message.is_config_error else EngineError(message.message)


def _socket_directory() -> str:
    """A new directory that only this user can enter (mode 0700)."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > MAX_DIRECTORY_BYTES:
        base = "/tmp"
    return tempfile.mkdtemp(prefix="jackfield-", dir=base)


def _spawn(directory: str, plan: EnginePlan) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    path = str(Path(directory) / "engine")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1)
    environment = child_environment(plan.worker.num_threads)
    # The child finds every module that this process finds (plugins given as module:Class).
    environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # -P: the working directory is on the path only if it is on ours.
    command = [sys.executable, "-P", "-m", "jackfield.engine.process", path]
    # Libraries that print must not print into the program's own output.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, env=environment)
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


def _describe(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
