"""Tokens that go past the request's task to the connection, and those that may not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from tests.core.llm.test_supervision import serving_plan
from tests.core.server.fake_llm import ByteTokenizer
from uvicorn.server import ServerState

from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    EngineReady,
    FinishReason,
    StepTokens,
    ToEngine,
)
from jackfield.hooks import Hooks
from jackfield.llm import AsyncLLM
from jackfield.llm.engine_link import EngineEvents
from jackfield.registry import Registry
from jackfield.server.app import build_app
from jackfield.server.completion_answer import CompletionFrames
from jackfield.server.door import Frontend
from jackfield.server.lifecycle import uvicorn_config
from jackfield.server.options import ServerOptions

READY = EngineReady(64, 16, 512, 257, [], [])


class HeldEngine:
    """An engine whose steps are the test's."""

    is_serving, num_restarts, pid, death = True, 0, 1, None

    def __init__(self, events: EngineEvents) -> None:
        self.events = events
        self.keys: list[int] = []
        self.aborted: list[int] = []

    def launch(self) -> None: ...

    async def start(self) -> EngineReady:
        return READY

    async def stop(self, timeout: float = 5.0) -> None: ...

    async def wait_dead(self) -> Any:
        await asyncio.Event().wait()

    async def ask(self, message: Any) -> Any: ...

    def send(self, message: ToEngine) -> None:
        if isinstance(message, AddRequest):
            self.keys.append(message.key)
        elif isinstance(message, AbortRequests):
            self.aborted += message.keys

    def step(self, text: str, finish: FinishReason = FinishReason.RUNNING) -> None:
        """One token, a byte, for every request."""
        count = len(self.keys)
        self.events.on_step(
            StepTokens(
                keys=np.array(self.keys, dtype="<i8").tobytes(),
                token_ids=np.full(count, ord(text), dtype="<i4").tobytes(),
                finish=np.full(count, finish, dtype=np.int8).tobytes(),
            )
        )


class Connection(asyncio.Transport):
    """What a client is sent."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.sent = b""

    def write(self, data: Any) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    @property
    def texts(self) -> list[str]:
        """Of all frames so far, in order."""
        events = [event for line in self.sent.split(b"\r\n") for event in line.split(b"\n\n")]
        frames = [json.loads(event[6:]) for event in events if event.startswith(b"data: {")]
        return [choice["text"] for frame in frames for choice in frame.get("choices", ())]


class Stream:
    """One streamed request over a plain connection, and the engine behind it."""

    def __init__(self, engine: HeldEngine, protocol: Any, connection: Connection) -> None:
        self.engine, self.protocol, self.connection = engine, protocol, connection


async def _settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@asynccontextmanager
async def streaming(
    monkeypatch: pytest.MonkeyPatch, middleware: tuple[str, ...] = (), **fields: Any
) -> AsyncIterator[Stream]:
    monkeypatch.setattr("jackfield.llm.text_side.load_tokenizer", lambda *_, **__: ByteTokenizer())
    engines: list[HeldEngine] = []

    def link(events: EngineEvents) -> HeldEngine:
        engines.append(HeldEngine(events))
        return engines[0]

    plan = serving_plan("SimulatedWorker", tokenizer_mode="auto")
    llm = AsyncLLM(plan, Registry(), link=link)
    await llm.start()
    options = ServerOptions(middleware=middleware, access_log=False)
    config = uvicorn_config(build_app(Frontend(llm, options), Hooks()), options)
    protocol: Any = config.http_protocol_class(config, ServerState(), {})  # type: ignore[call-arg]
    connection = Connection()
    protocol.connection_made(connection)
    body = json.dumps({"prompt": "ab", "max_tokens": 50, "stream": True, **fields}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    protocol.data_received(head + body)
    await _settle()
    yield Stream(engines[0], protocol, connection)
    protocol.connection_lost(None)
    await _settle()
    assert not llm._runs


async def test_a_running_token_is_sent_before_any_task_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with streaming(monkeypatch) as one:
        one.engine.step("a")
        await _settle()
        for text in "bcd":
            one.engine.step(text)
            assert one.connection.texts[-1] == text
        one.engine.step("e", FinishReason.LENGTH)
        assert one.connection.texts[-1] == "d"
        await _settle()
        assert one.connection.texts == list("abcde")
        assert one.connection.sent.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_slow_reader_gets_all_of_it_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async with streaming(monkeypatch) as one:
        one.engine.step("a")
        await _settle()
        one.protocol.pause_writing()
        for text in "bcd":
            one.engine.step(text)
            await _settle()
        assert one.connection.texts == ["a"]
        one.protocol.resume_writing()
        # The task has not gone on yet: what comes now stands behind what it holds.
        one.engine.step("e")
        await _settle()
        assert "".join(one.connection.texts) == "abcde"
        one.engine.step("f")
        assert one.connection.texts[-1] == "f"


@pytest.mark.parametrize("choices", [1, 2])
async def test_choices_that_come_together_go_out_together(
    monkeypatch: pytest.MonkeyPatch, choices: int
) -> None:
    async with streaming(monkeypatch, n=choices) as one:
        one.engine.step("a")
        await _settle()
        one.engine.step("b")
        assert one.connection.texts.count("b") == (1 if choices == 1 else 0)
        await _settle()
        assert one.connection.texts.count("b") == choices


async def test_a_client_that_left_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with streaming(monkeypatch) as one:
        one.engine.step("a")
        await _settle()
        one.protocol.connection_lost(None)
        one.engine.step("b")
        await _settle()
        assert one.connection.texts == ["a"]
        assert one.engine.aborted == one.engine.keys


async def test_a_frame_that_cannot_be_made_ends_its_stream_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with streaming(monkeypatch) as one:
        one.engine.step("a")
        await _settle()
        with monkeypatch.context() as context:
            context.setattr(CompletionFrames, "feed", lambda *_: 1 / 0)
            one.engine.step("b")
        await _settle()
        assert b'"error"' in one.connection.sent
        assert one.connection.sent.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert one.engine.aborted == one.engine.keys


class Shouting:
    """Middleware of a plugin that changes bodies."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_loudly(message: Any) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message.get("body", b"").replace(b'"b"', b'"B"')}
            await send(message)

        await self._app(scope, receive, send_loudly)


async def test_foreign_middleware_sees_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{__name__}:Shouting"
    async with streaming(monkeypatch, middleware=(path,)) as one:
        one.engine.step("a")
        await _settle()
        one.engine.step("b")
        assert one.connection.texts == ["a"]
        await _settle()
        assert one.connection.texts == ["a", "B"]
