"""What the reader of an engine sends, and when it leaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from jackfield.contracts.messages import AbortRequests, ToEngine
from jackfield.engine.channel import FrameDecoder
from jackfield.engine.protocol import EngineProtocol


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[EngineProtocol, socket.socket]]:
    """A protocol, and the engine's end of its connection."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.setblocking(False)
    ours.setblocking(False)
    _, protocol = await asyncio.get_running_loop().create_unix_connection(
        lambda: EngineProtocol(lambda step: None, lambda error: None), sock=ours
    )
    try:
        yield protocol, theirs
    finally:
        protocol.close()
        theirs.close()
        await protocol.closed


def read(end: socket.socket, decoder: FrameDecoder[ToEngine]) -> list[ToEngine]:
    messages: list[ToEngine] = []
    while True:
        try:
            messages += decoder.feed(end.recv(1 << 16))
        except BlockingIOError:
            return messages


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def make_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    made: Callable[[], asyncio.AbstractEventLoop] = request.param
    return made


def test_messages_keep_their_order_where_the_engine_does_not_read(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with connected() as (protocol, engine):
            decoder: FrameDecoder[ToEngine] = FrameDecoder(ToEngine)
            sent = [AbortRequests([number, *range(20_000)]) for number in range(30)]
            for message in sent:
                protocol.send(message)
            received = read(engine, decoder)
            assert len(received) < len(sent), "the connection takes more than this test sends"
            while len(received) < len(sent):
                await asyncio.sleep(0.005)
                received += read(engine, decoder)
            protocol.send(AbortRequests([-1]))
            await asyncio.sleep(0.1)
            protocol.send(AbortRequests([-2]))
            await asyncio.sleep(0.1)  # uvloop before 0.23 writes at the loop's next turn
            received += read(engine, decoder)
            assert received == [*sent, AbortRequests([-1]), AbortRequests([-2])]

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())


def test_an_engine_that_has_gone_is_sent_nothing(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with connected() as (protocol, engine):
            engine.close()
            protocol.send(AbortRequests([7]))
            await protocol.closed
            protocol.send(AbortRequests([7]))

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
