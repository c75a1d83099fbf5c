"""Several clients of one engine: whose requests are whose, and what becomes of them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.core.engine.test_process import Listener, make_plan
from tests.waiting import PATIENCE_SECONDS, until

from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    EngineReady,
    EngineStats,
    FinishReason,
    RequestFailed,
    RequestLogprobs,
    RequestPooled,
    Sleep,
    SleepState,
    StepTokens,
    StopEngine,
    ToEngine,
    WakeUp,
)
from jackfield.contracts.sampling import TokenSampling
from jackfield.engine.channel import EngineChannel, FrameEncoder, JoinEngine
from jackfield.engine.client import EngineClient
from jackfield.engine.clients import KEY_BITS, Clients, first_key, split
from jackfield.engine.protocol import EngineProtocol
from jackfield.errors import EngineError
from jackfield.testing.simulated_worker import continuation

READY = EngineReady(num_blocks=2, block_size=4, max_model_len=4, logits_width=9, phases=[])


class Client:
    """What a process that shares an engine has of it."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.slept: list[SleepState] = []
        self.stats: EngineStats | None = None
        self.protocol = EngineProtocol(
            self.on_step, self.listener.dead.set_result, self.slept.append
        )

    def on_step(self, step: StepTokens) -> None:
        self.stats = step.stats or self.stats
        self.listener.on_step(step)

    async def join(self, path: str, number: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self.protocol, path)
        self.protocol.send(JoinEngine(number))
        await asyncio.wait_for(asyncio.shield(self.protocol.ready), PATIENCE_SECONDS)

    def add(self, key: int, prompt: list[int], max_tokens: int) -> None:
        ids = np.array(prompt, dtype="<i4").tobytes()
        self.protocol.send(AddRequest(key, ids, TokenSampling(), max_tokens, time.monotonic()))


@asynccontextmanager
async def shared(worker: str = "NotedWorker") -> AsyncIterator[tuple[EngineClient, Listener]]:
    parent, listener = EngineClient(make_plan(worker), is_shared=True), Listener()
    try:
        await parent.connect(listener.on_step, listener.dead.set_result)
        yield parent, listener
    finally:
        await parent.stop()


async def test_tokens_go_to_the_client_that_asked() -> None:
    async with shared() as (parent, _):
        first, second = Client(), Client()
        await first.join(parent.clients_path, 1)
        await second.join(parent.clients_path, 2)
        for count in range(3):
            first.add(first_key(1) + count, [count + 1], 20)
            second.add(first_key(2) + count, [count + 11], 25)
        await first.listener.finished(*range(first_key(1), first_key(1) + 3))
        await second.listener.finished(*range(first_key(2), first_key(2) + 3))
        for count in range(3):
            ours, theirs = first.listener.tokens, second.listener.tokens
            assert ours.pop(first_key(1) + count) == continuation([count + 1], 20, 97)
            assert theirs.pop(first_key(2) + count) == continuation([count + 11], 25, 97)
        assert not first.listener.tokens and not second.listener.tokens
        # Both, and the parent, know how much the engine has to do.
        assert first.stats is not None and second.stats is not None


async def test_the_requests_of_a_client_that_leaves_are_ended() -> None:
    async with shared("SlowWorker") as (parent, _):
        leaver, stayer = Client(), Client()
        await leaver.join(parent.clients_path, 1)
        await stayer.join(parent.clients_path, 2)
        for count in range(30):
            leaver.add(first_key(1) + count, [count + 1], 80)
        await until(lambda: leaver.listener.tokens)
        leaver.protocol.close()
        # All rows were the leaver's, and more of its requests wait.
        stayer.add(first_key(2), [5], 3)
        await stayer.listener.finished(first_key(2))
        await until(lambda: stayer.stats is not None and stayer.stats.num_blocks_used <= 1)
        assert stayer.stats is not None and stayer.stats.num_running <= 1
        assert stayer.stats.num_waiting == 0
        assert stayer.listener.tokens == {first_key(2): continuation([5], 3, 97)}


async def test_a_client_with_keys_of_another_is_disconnected() -> None:
    async with shared() as (parent, _):
        thief, owner = Client(), Client()
        await thief.join(parent.clients_path, 1)
        await owner.join(parent.clients_path, 2)
        thief.add(first_key(2), [1], 3)
        await asyncio.wait_for(thief.protocol.closed, PATIENCE_SECONDS)
        owner.add(first_key(2), [2], 3)
        await owner.listener.finished(first_key(2))


@pytest.mark.parametrize("message", [StopEngine(), JoinEngine(3)])
async def test_a_client_that_says_what_only_others_may_is_disconnected(
    message: StopEngine | JoinEngine,
) -> None:
    async with shared() as (parent, _):
        presumptuous, other = Client(), Client()
        await presumptuous.join(parent.clients_path, 1)
        await other.join(parent.clients_path, 2)
        presumptuous.protocol.send(message)
        await asyncio.wait_for(presumptuous.protocol.closed, PATIENCE_SECONDS)
        other.add(first_key(2), [2], 3)
        await other.listener.finished(first_key(2))


def frames(*messages: msgspec.Struct) -> bytes:
    return b"".join(map(FrameEncoder().encode, messages))


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x03\0\0\0abc",
        frames(AbortRequests([])),
        frames(JoinEngine(2), AbortRequests([])),
    ],
)
async def test_whoever_does_not_say_first_who_it_is_is_disconnected(words: bytes) -> None:
    async with shared() as (parent, _):
        stranger, writer = await asyncio.open_unix_connection(parent.clients_path)
        writer.write(words)
        assert await asyncio.wait_for(stranger.read(), PATIENCE_SECONDS) == b""
        writer.close()
        client = Client()
        await client.join(parent.clients_path, 1)
        client.add(first_key(1), [2], 3)
        await client.listener.finished(first_key(1))


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where ``Clients`` of this process listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "clients"))
        listener.listen()
        listener.setblocking(False)
        monkeypatch.setattr("jackfield.engine.clients._listen", lambda path: listener)
        yield listener


def connect(listener: socket.socket) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(listener.getsockname())
    return client


def test_a_client_that_does_not_read_is_cut_off_and_hears_of_it(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jackfield.engine.channel.MAX_BUFFERED_BYTES", 1 << 20)
    parent, theirs = socket.socketpair()
    with parent, theirs, connect(listener) as client:
        clients = Clients(EngineChannel(parent, ToEngine), "", READY)
        client.sendall(frames(JoinEngine(1)))
        assert clients.poll() == []
        for _ in range(5):
            clients.send_step(StepTokens(keys=np.full(100_000, first_key(1), "<i8").tobytes()))
        assert clients.poll() == [] and clients.gone == [1] and not clients.closed
        while client.recv(1 << 20):
            pass
    assert len(caplog.records) == 1 and "cut off" in caplog.text


def test_whoever_leaves_without_a_word_leaves_no_open_connection(
    listener: socket.socket,
) -> None:
    """A connection that is left to the collector is a warning, which here is an error."""
    parent, theirs = socket.socketpair()
    with parent, theirs:
        clients = Clients(EngineChannel(parent, ToEngine), "", READY)
        connect(listener).close()
        assert clients.poll() == [] and clients.gone == []


async def test_a_number_that_is_taken_is_refused() -> None:
    async with shared() as (parent, _):
        first, second = Client(), Client()
        await first.join(parent.clients_path, 1)
        joining = asyncio.create_task(second.join(parent.clients_path, 1))
        await asyncio.wait_for(second.protocol.closed, PATIENCE_SECONDS)
        assert not joining.done()
        joining.cancel()


async def test_all_clients_hear_of_a_sleep_and_requests_sent_meanwhile_are_aborted() -> None:
    async with shared("SleepyWorker") as (parent, _):
        first, second = Client(), Client()
        await first.join(parent.clients_path, 1)
        await second.join(parent.clients_path, 2)
        assert await first.protocol.ask(Sleep(1)) == SleepState(is_asleep=True)
        await until(lambda: second.slept)
        assert second.slept == [SleepState(is_asleep=True, is_answer=False)]
        second.add(first_key(2), [2], 3)
        await second.listener.finished(first_key(2))
        assert second.listener.finish == {first_key(2): FinishReason.ABORT}
        late = Client()
        await late.join(parent.clients_path, 3)
        await until(lambda: late.slept)
        assert await second.protocol.ask(WakeUp()) == SleepState(is_asleep=False)
        await until(lambda: late.slept[-1] == SleepState(is_asleep=False, is_answer=False))


async def test_clients_hear_of_the_engines_end() -> None:
    async with shared() as (parent, _):
        client = Client()
        await client.join(parent.clients_path, 1)
        client.protocol.send(AbortRequests([first_key(1)]))
        await parent.stop()
        await asyncio.wait_for(client.protocol.closed, PATIENCE_SECONDS)
        client.protocol.end(EngineError("gone"))
        assert str(await client.listener.dead) == "gone"


def test_every_part_of_a_step_goes_to_its_client() -> None:
    ours, theirs = first_key(1), first_key(2)
    keys = [ours, theirs, ours + 1, theirs + 1]
    step = StepTokens(
        keys=np.array(keys, "<i8").tobytes(),
        token_ids=np.array([1, 2, 3, 4], "<i4").tobytes(),
        finish=np.array([0, 1, 2, 0], np.int8).tobytes(),
        num_cached=np.array([0, 5, 0, 6], "<i4").tobytes(),
        scheduled=np.array([0.0, 1.0, 0.0, 2.0], "<f8").tobytes(),
        logprobs=[RequestLogprobs(ours, [])],
        failed=[RequestFailed(theirs, "why")],
        pooled=[RequestPooled(ours + 1, b"abcd")],
    )
    parts = dict(split(step))
    assert set(parts) == {1, 2}
    assert np.frombuffer(parts[1].keys, "<i8").tolist() == [ours, ours + 1]
    assert np.frombuffer(parts[2].token_ids, "<i4").tolist() == [2, 4]
    assert np.frombuffer(parts[1].finish, np.int8).tolist() == [0, 2]
    assert np.frombuffer(parts[2].num_cached, "<i4").tolist() == [5, 6]
    assert np.frombuffer(parts[2].scheduled, "<f8").tolist() == [1.0, 2.0]
    assert (parts[1].logprobs, parts[2].logprobs) == (step.logprobs, [])
    assert (parts[1].failed, parts[2].failed) == ([], step.failed)
    assert (parts[1].pooled, parts[2].pooled) == (step.pooled, [])
    only = StepTokens(keys=np.array([ours], "<i8").tobytes())
    assert list(split(only)) == [(1, only)]
    assert first_key(3) >> KEY_BITS == 3
