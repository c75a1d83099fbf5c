"""The reader's end of a connection to an engine: frames to callbacks, and how it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from jackfield.contracts.messages import (
    Answer,
    EngineFailed,
    EngineReady,
    FromEngine,
    Question,
    SleepState,
    StepTokens,
    ToEngine,
)
from jackfield.engine.channel import FrameDecoder, FrameEncoder, JoinEngine
from jackfield.engine.joined_steps import joined
from jackfield.errors import ConfigError, EngineError, JackfieldError


class EngineProtocol(asyncio.Protocol):
    """One connection to one engine. ``on_sleep`` is told when another client of the engine has
    put it to sleep or woken it."""

    def __init__(
        self,
        on_step: Callable[[StepTokens], None],
        on_dead: Callable[[JackfieldError], None],
        on_sleep: Callable[[SleepState], None] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[EngineReady] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.serving = False
        self.stopping = False
        self.watch: asyncio.Task[None] | None = None
        self._on_step = on_step
        self._on_dead = on_dead
        self._on_sleep = on_sleep
        self._encoder = FrameEncoder()
        self._decoder: FrameDecoder[FromEngine] = FrameDecoder(FromEngine)
        self._transport: asyncio.Transport | None = None
        self._failure: JackfieldError | None = None
        self._ended = False
        self._answers: deque[asyncio.Future[Answer]] = deque()

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
        for message in joined(messages):
            if isinstance(message, StepTokens):
                self._on_step(message)
            elif isinstance(message, EngineFailed):
                self._failure = _failure(message)
            elif isinstance(message, Answer):
                self._take_answer(message)
            else:
                self.serving = True
                if not self.ready.done():
                    self.ready.set_result(message)

    def _take_answer(self, answer: Answer) -> None:
        if isinstance(answer, SleepState) and not answer.is_answer:
            if self._on_sleep is not None:
                self._on_sleep(answer)
            return
        waiting = self._answers.popleft()
        # Whoever asked may have stopped waiting.
        if not waiting.done():
            waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def ask(self, message: Question) -> asyncio.Future[Answer]:
        """Sends a message that is answered; ``EngineError`` for one that is too long, and in the
        place of an answer if the engine ends before."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._ended:
            answer.set_exception(EngineError("the engine is gone"))
        else:
            self.send(message)
            # Only now: what was not sent has no answer.
            self._answers.append(answer)
        return answer

    def fail(self, failure: JackfieldError) -> None:
        """Why the end is near; what the process says itself goes before."""
        if self._failure is None:
            self._failure = failure

    def send(self, message: ToEngine | JoinEngine) -> None:
        """Hands a message to the engine; never blocks. After the end it goes nowhere. What has come
        together leaves together: requests that trickle in would each cost a step with a prompt."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._encoder.encode(message))

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
