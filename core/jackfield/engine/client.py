"""The asyncio side of the process border: spawns the engine process and talks to it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from jackfield.config.plan import EnginePlan
from jackfield.contracts.messages import (
    Answer,
    EngineReady,
    Question,
    StepTokens,
    StopEngine,
    ToEngine,
)
from jackfield.engine.child import EngineProcess, describe
from jackfield.engine.protocol import EngineProtocol
from jackfield.engine.pulse import INTERVAL_SECONDS, PulseWatch, WatchLimits
from jackfield.engine.spawning import SpawnedEngine
from jackfield.errors import EngineError, EngineKilledError, JackfieldError

EXIT_SECONDS = 1.0
"""How long the two halves of an end, the socket's and the process', may be apart."""


class EngineClient:
    """One engine process, as its parent sees it. A shared one takes other clients, too."""

    def __init__(
        self,
        plan: EnginePlan,
        limits: WatchLimits | None = None,
        spawned: SpawnedEngine | None = None,
        *,
        is_shared: bool = False,
    ) -> None:
        self._plan = plan
        self._spawned = spawned
        self._is_shared = is_shared
        self._limits = limits or WatchLimits()
        self._process: EngineProcess | None = None
        self._protocol: EngineProtocol | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the engine; None before ``launch``."""
        return None if self._process is None else self._process.pid

    @property
    def clients_path(self) -> str:
        """Where other processes connect to the engine, if it is shared and serves."""
        assert self._process is not None, "the engine was launched"
        return self._process.clients_path

    def launch(self) -> None:
        """Spawns the process and returns; needs no event loop. Idempotent."""
        if self._process is None:
            self._process = EngineProcess(self._plan, self._spawned, is_shared=self._is_shared)

    async def connect(
        self,
        on_step: Callable[[StepTokens], None],
        on_dead: Callable[[JackfieldError], None],
    ) -> EngineReady:
        """Waits until the engine is ready; ``ConfigError`` or ``EngineError`` if it never is.

        Afterwards ``on_step`` gets every step's tokens and ``on_dead``, once, the reason of an
        end that ``stop`` did not ask for; both in this event loop's thread. An engine that is
        frozen (``limits``) is killed.
        """
        self.launch()
        assert self._process is not None
        connection = await asyncio.wrap_future(self._process.connection)
        loop = asyncio.get_running_loop()
        _, self._protocol = await loop.create_unix_connection(
            lambda: EngineProtocol(on_step, on_dead), sock=connection
        )
        self._protocol.watch = asyncio.create_task(self._watch(self._process, self._protocol))
        return await self._protocol.ready

    def send(self, message: ToEngine) -> None:
        """Hands a message to the engine; never blocks. After the engine's end it goes nowhere."""
        if self._protocol is not None:
            self._protocol.send(message)

    async def ask(self, message: Question) -> Answer:
        """Sends a message that is answered, and waits for the answer; ``EngineError`` if the engine
        ends before."""
        if self._protocol is None:
            raise EngineError("the engine was not started")
        return await self._protocol.ask(message)

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
        else:
            process.discard()

    async def _watch(self, process: EngineProcess, protocol: EngineProtocol) -> None:
        """Says how the process ended, after everything it said itself has been read."""
        status = asyncio.wrap_future(process.status)
        ends: list[asyncio.Future[Any]] = [status, protocol.closed]
        listening = asyncio.create_task(self._listen(process, protocol))
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
        listening.cancel()
        await asyncio.wait({listening})
        kind = EngineKilledError if code == -signal.SIGKILL else EngineError
        protocol.end(kind(f"the engine process {describe(code)}"))

    async def _listen(self, process: EngineProcess, protocol: EngineProtocol) -> None:
        """Kills a process that serves and is frozen. Until it serves it may take its time."""
        watch = PulseWatch(self._limits)
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(
            lambda: _PulseProtocol(watch), os.fdopen(process.take_pulse(), "rb", buffering=0)
        )
        try:
            while True:
                await asyncio.sleep(INTERVAL_SECONDS)
                if protocol.serving and (complaint := watch.complaint()) is not None:
                    protocol.fail(EngineError(complaint))
                    process.signal(signal.SIGKILL)
                    return
        finally:
            pipe.close()


class _PulseProtocol(asyncio.Protocol):
    """The pipe to the watch."""

    def __init__(self, watch: PulseWatch) -> None:
        self.data_received = watch.feed  # type: ignore[method-assign]
