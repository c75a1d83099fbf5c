"""uvicorn's h11 protocol with deadlines: a client must send its headers, then its body, in time."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class DeadlineProtocol(H11Protocol):
    """Closes a connection on which a request does not arrive in time.

    The time for the headers runs from the connection, or from the first byte after the last
    request; idle connections between two requests are uvicorn's keep-alive business. The rest
    of a body that was answered early (413) is read and dropped until the deadline: closing at
    once would take the answer away from a client that still sends.
    """

    header_seconds: ClassVar[float] = 30.0
    body_seconds: ClassVar[float] = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_state: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request(h11.IDLE)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        state = self.conn.their_state
        if state is not self._deadline_state:
            self._await_request(state)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    def _await_request(self, state: object) -> None:
        self._cancel_deadline()
        if state is h11.IDLE:
            seconds = self.header_seconds
        elif state is h11.SEND_BODY:
            seconds = self.body_seconds
        else:
            return
        self._deadline_state = state
        self._deadline = self.loop.call_later(seconds, self._close)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._deadline_state = None

    def _close(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


def deadline_protocol(header_seconds: float, body_seconds: float) -> type[DeadlineProtocol]:
    """The protocol class with these deadlines, as uvicorn wants it: a class, not an object."""
    times = {"header_seconds": header_seconds, "body_seconds": body_seconds}
    return type("ConfiguredProtocol", (DeadlineProtocol,), times)
