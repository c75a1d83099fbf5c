"""Typed messages over a unix stream socket: four bytes of length (little-endian), then msgpack."""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

from jackfield.config.plan import EnginePlan
from jackfield.contracts.messages import FromEngine
from jackfield.errors import EngineError

log = logging.getLogger(__name__)

HEADER_BYTES = 4
MAX_FRAME_BYTES = 64 << 20
MAX_BUFFERED_BYTES = 256 << 20
_READ_BYTES = 1 << 18

Received = TypeVar("Received")


class StartEngine(msgspec.Struct, frozen=True, tag="start"):
    """The first frame to a new engine process. ``launched``: monotonic time of its launch;
    ``clients_path``: where it listens for clients besides its parent, if it should."""

    plan: EnginePlan
    launched: float
    clients_path: str | None = None


class JoinEngine(msgspec.Struct, frozen=True, tag="join"):
    """The first frame of a client that is not the parent. Its requests' keys are those of
    ``client`` (``engine.clients``), a number that no other client of the engine ever has."""

    client: int


class FrameEncoder:
    """Messages to frames."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, message: msgspec.Struct) -> bytearray:
        """The whole frame; ``EngineError`` for a message that no reader would take."""
        frame = bytearray(HEADER_BYTES)
        self._encoder.encode_into(message, frame, HEADER_BYTES)
        size = len(frame) - HEADER_BYTES
        if size > MAX_FRAME_BYTES:
            raise EngineError(f"a message of {size} bytes is longer than {MAX_FRAME_BYTES}")
        frame[:HEADER_BYTES] = size.to_bytes(HEADER_BYTES, "little")
        return frame


class FrameDecoder(Generic[Received]):
    """Bytes, split anywhere, to messages of one type (a tagged union)."""

    def __init__(self, message_type: object) -> None:
        self._decoder = msgspec.msgpack.Decoder(message_type)
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[Received]:
        """The messages that ``data`` completes; ``EngineError`` for what is no message."""
        buffer = self._buffer
        buffer += data
        messages: list[Received] = []
        start = 0
        while len(buffer) - start >= HEADER_BYTES:
            body = start + HEADER_BYTES
            size = int.from_bytes(buffer[start:body], "little")
            if size > MAX_FRAME_BYTES:
                raise EngineError(f"a message of {size} bytes is longer than {MAX_FRAME_BYTES}")
            if len(buffer) < body + size:
                break
            try:
                messages.append(self._decoder.decode(buffer[body : body + size]))
            except msgspec.MsgspecError as error:
                raise EngineError(f"a message cannot be read: {error}") from error
            start = body + size
        del buffer[:start]
        return messages


class EngineChannel(Generic[Received]):
    """The engine's end. Nothing but ``wait`` blocks: what the socket does not take at once is
    kept and goes out at the next ``poll``."""

    def __init__(self, connection: socket.socket, message_type: object) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._decoder: FrameDecoder[Received] = FrameDecoder(message_type)
        self._encoder = FrameEncoder()
        self._unsent = bytearray()
        self._poller = select.poll()
        self.closed = False
        """The other end is gone."""

    def poll(self) -> list[Received]:
        """The messages that have come; also sends what is kept. Two system calls as a rule."""
        self._flush()
        messages: list[Received] = []
        while not self.closed:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            if not data:
                self.closed = True
                break
            messages += self._decoder.feed(data)
            if len(data) < _READ_BYTES:
                break
        return messages

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Sleeps until something can be read, or what is kept can be sent."""
        self.register(self._poller)
        self._poller.poll(None if timeout_seconds is None else timeout_seconds * 1000)

    def register(self, poller: select.poll) -> None:
        """Adds what ``wait`` waits for to a poller."""
        if not self.closed:
            poller.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))

    def send(self, message: FromEngine) -> None:
        """Sends a message, or keeps it; a reader that is far behind counts as gone."""
        self._unsent += self._encoder.encode(message)
        self._flush()
        if len(self._unsent) > MAX_BUFFERED_BYTES and not self.closed:
            log.warning("a reader is %d bytes behind and is cut off", len(self._unsent))
            self.closed = True

    def drain(self, timeout_seconds: float) -> None:
        """Waits until everything kept is sent, the other end is gone, or time is up."""
        self._socket.settimeout(timeout_seconds)
        try:
            if not self.closed and self._unsent:
                self._socket.sendall(self._unsent)
                self._unsent = bytearray()
        except OSError:
            self.closed = True

    def close(self) -> None:
        """Ends the connection."""
        self.closed = True
        self._socket.close()

    def _flush(self) -> None:
        if not self._unsent or self.closed:
            return
        try:
            num_sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except ConnectionError:
            self.closed = True
            return
        del self._unsent[:num_sent]


def wait_for_any(
    channels: Iterable[EngineChannel[Any]], listener: socket.socket, timeout_seconds: float | None
) -> None:
    """Sleeps until one of the channels has something to do, or somebody connects."""
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    for channel in channels:
        channel.register(poller)
    poller.poll(None if timeout_seconds is None else timeout_seconds * 1000)
