"""The asyncio side of the process border: spawns the engine process and talks to it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from jackfield.config.plan import EnginePlan
from jackfield.contracts.messages import (
    EngineFailed,
    EngineReady,
    FromEngine,
    Sleep,
    SleepState,
    StepTokens,
    StopEngine,
    ToEngine,
    WakeUp,
)
from jackfield.engine.channel import FrameDecoder, FrameEncoder
from jackfield.engine.child import EngineProcess, describe
from jackfield.engine.pulse import INTERVAL_SECONDS, PulseWatch, WatchLimits
from jackfield.errors import ConfigError, EngineError, EngineKilledError, JackfieldError

EXIT_SECONDS = 1.0
"""How long the two halves of an end, the socket's and the process', may be apart."""


class EngineClient:
    """One engine process, as the API process sees it."""

    def __init__(self, plan: EnginePlan, limits: WatchLimits | None = None) -> None:
        self._plan = plan
        self._limits = limits or WatchLimits()
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
        end that ``stop`` did not ask for; both in this event loop's thread. An engine that is
        frozen (``limits``) is killed.
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

    async def ask(self, message: Sleep | WakeUp) -> SleepState:
        """Sends a message that is answered, and waits for the answer; ``EngineError`` if the engine
        ends before."""
        if self._protocol is None:
            raise EngineError("the engine was not started")
        answer = self._protocol.expect()
        self.send(message)
        return await answer

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
            os.close(process.pulse)
            if process.connection.done() and process.connection.exception() is None:
                process.connection.result().close()

    async def _watch(self, process: EngineProcess, protocol: _EngineProtocol) -> None:
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

    async def _listen(self, process: EngineProcess, protocol: _EngineProtocol) -> None:
        """Kills a process that serves and is frozen. Until it serves it may take its time."""
        watch = PulseWatch(self._limits)
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(
            lambda: _PulseProtocol(watch), os.fdopen(process.pulse, "rb", buffering=0)
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
        self._answers: deque[asyncio.Future[SleepState]] = deque()

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
            elif isinstance(message, SleepState):
                answer = self._answers.popleft()
                if not answer.done():
                    answer.set_result(message)
            else:
                self.serving = True
                if not self.ready.done():
                    self.ready.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def expect(self) -> asyncio.Future[SleepState]:
        """The answer to the next message that is answered."""
        answer: asyncio.Future[SleepState] = asyncio.get_running_loop().create_future()
        if self._ended:
            answer.set_exception(EngineError("the engine is gone"))
        else:
            self._answers.append(answer)
        return answer

    def fail(self, failure: JackfieldError) -> None:
        """Why the end is near; what the process says itself goes before."""
        if self._failure is None:
            self._failure = failure

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
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(EngineError(str(failure)))
        if not self.ready.done():
            self.ready.set_exception(failure)
        elif not self.stopping:
            self._on_dead(failure)


def _failure(message: EngineFailed) -> JackfieldError:
    return ConfigError(message.message) if message.is_config_error else EngineError(message.message)
