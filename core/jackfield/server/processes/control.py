"""What an API process and its keeper tell each other: typed frames over a socket pair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec

from jackfield.engine.channel import FrameDecoder, FrameEncoder
from jackfield.errors import ConfigError, EngineError, EngineKilledError, JackfieldError

_READ_BYTES = 1 << 16


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An error that another process is to raise."""

    message: str
    kind: str

    @classmethod
    def of(cls, error: JackfieldError) -> Failure:
        """The error, as it travels."""
        for kind, known in _KINDS.items():
            if isinstance(error, known):
                return cls(str(error), kind)
        return cls(str(error), "engine")

    def error(self) -> JackfieldError:
        """The error, as it is raised."""
        return _KINDS[self.kind](self.message)


_KINDS: dict[str, type[JackfieldError]] = {
    "config": ConfigError,
    "killed": EngineKilledError,
    "engine": EngineError,
}


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """What one process has to say of itself; ``number`` of the question."""

    number: int
    metrics: bytes
    """Prometheus' exposition format."""
    num_active: int
    """Generation requests under way."""


# --- to an API process -------------------------------------------------------------------


class StartApi(msgspec.Struct, frozen=True, tag="start"):
    """The first frame: the command line, and the process' number at the engine. One of them logs
    the engine's throughput. One that ``replaces`` another has clients waiting."""

    words: list[str]
    client: int
    logs_throughput: bool
    replaces: bool


class EngineServes(msgspec.Struct, frozen=True, tag="serves"):
    """There is an engine; it listens at ``path``."""

    path: str
    pid: int
    num_restarts: int


class EngineDied(msgspec.Struct, frozen=True, tag="died"):
    """The engine is gone; another one is being started."""

    failure: Failure


class NoEngine(msgspec.Struct, frozen=True, tag="no_engine"):
    """There will be no engine any more."""

    failure: Failure


class StopApi(msgspec.Struct, frozen=True, tag="stop"):
    """The keeper got this signal; API processes do not listen to signals themselves."""

    signal: int


class TellSnapshot(msgspec.Struct, frozen=True, tag="tell"):
    """To be answered by a ``Snapshot`` of the same number."""

    number: int


class TellAlive(msgspec.Struct, frozen=True, tag="tell_alive"):
    """To be answered by ``Alive``, at once."""


class Snapshots(msgspec.Struct, frozen=True, tag="snapshots"):
    """The answer to ``AskSnapshots``: of the other processes, and of those that have ended."""

    number: int
    others: list[Snapshot]
    ended: list[bytes]


ToApi = (
    StartApi | EngineServes | EngineDied | NoEngine | StopApi | TellSnapshot | TellAlive | Snapshots
)


# --- from an API process -----------------------------------------------------------------


class ApiReady(msgspec.Struct, frozen=True, tag="ready"):
    """The process serves."""


class ApiFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The process ends, and why."""

    failure: Failure


class AskSnapshots(msgspec.Struct, frozen=True, tag="ask"):
    """What do the others say? Answered by ``Snapshots`` of the same number."""

    number: int


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """The event loop turns."""


FromApi = ApiReady | ApiFailed | AskSnapshots | Snapshot | Alive

Received = TypeVar("Received")


class Control(asyncio.Protocol, Generic[Received]):
    """One end of the pair. Before ``attach`` it blocks, afterwards it belongs to the event loop."""

    def __init__(self, connection: socket.socket, message_type: object) -> None:
        self._connection = connection
        self._decoder: FrameDecoder[Received] = FrameDecoder(message_type)
        self._encoder = FrameEncoder()
        self._waiting: list[Received] = []
        self._transport: asyncio.Transport | None = None
        self._on_message: Callable[[Received], None] = self._waiting.append
        self._on_closed: Callable[[], None] = lambda: None

    def receive(self) -> Received:
        """Waits for a message; ``EOFError`` if the other end is gone."""
        while not self._waiting:
            data = self._connection.recv(_READ_BYTES)
            if not data:
                raise EOFError("the process at the other end is gone")
            self._waiting += self._decoder.feed(data)
        return self._waiting.pop(0)

    async def attach(
        self, on_message: Callable[[Received], None], on_closed: Callable[[], None]
    ) -> None:
        """From now on messages, also those that wait already, go to ``on_message``."""
        self._on_message, self._on_closed = on_message, on_closed
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            on_message(message)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=self._connection)

    def send(self, message: msgspec.Struct) -> None:
        """Sends a message; never blocks once attached."""
        frame = self._encoder.encode(message)
        if self._transport is None:
            self._connection.sendall(frame)
        elif not self._transport.is_closing():
            self._transport.write(frame)

    def close(self) -> None:
        """Ends the connection, after what is being sent."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._connection.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_closed()
