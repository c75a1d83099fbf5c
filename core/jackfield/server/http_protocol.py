"""uvicorn's h11 protocol with deadlines: a client must send, and read, in time."""

from __future__ import annotations

import asyncio
import re
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from jackfield.errors import RequestError
from jackfield.server.asgi import Scope
from jackfield.server.errors import error_object
from jackfield.server.json_bytes import dumps
from jackfield.server.plain_http import PlainCycle, PlainRequest, make_scope, parse

LINGER_SECONDS = 1.0
"""How long a connection stays open behind an answer to what was no HTTP."""


_ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


class OriginConnection(h11.Connection):
    """h11's, with all requests in origin-form: absolute targets, such as clients send to proxies,
    lose their scheme and host (RFC 9112, section 3.2.2)."""

    def next_event(self) -> Any:
        """As h11 has it."""
        event = super().next_event()
        if type(event) is h11.Request and (found := _ABSOLUTE.match(event.target)):
            target = event.target[found.end() :]
            if not target.startswith(b"/"):
                target = b"/" + target
            return h11.Request(
                method=event.method,
                target=target,
                headers=event.headers,
                http_version=event.http_version,
            )
        return event


class DeadlineProtocol(H11Protocol):
    """Closes a connection on which a request does not arrive, or an answer is not read, in time.

    The time for the headers runs from the connection, or from the first byte after the last
    request; idle connections between two requests are uvicorn's keep-alive business. The rest
    of a body that was answered early (413) is read and dropped until the deadline: closing at
    once would take the answer away from a client that still sends. The time to read runs from
    when the client leaves more than uvicorn's 64 KiB unread until most of that is read.
    """

    header_seconds: ClassVar[float] = 30.0
    body_seconds: ClassVar[float] = 60.0
    read_seconds: ClassVar[float] = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        max_head_bytes = self.config.h11_max_incomplete_event_size
        assert max_head_bytes is not None, "given with the others"
        self.conn = OriginConnection(h11.SERVER, max_head_bytes)
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_state: object = None
        self._read_deadline: asyncio.TimerHandle | None = None
        self._is_dropping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request(h11.IDLE)

    def data_received(self, data: bytes) -> None:
        if self._is_dropping:
            return
        super().data_received(data)
        state = self.conn.their_state
        if state is not self._deadline_state and not self._is_dropping:
            self._await_request(state)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        self._cancel_read_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_deadline = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_read_deadline()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets an error in the API's shape, too, unless an answer has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = RequestError("This is not a valid HTTP request", code="invalid_http")
            body = dumps(error_object(error))
            head = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            response = h11.Response(status_code=400, headers=head, reason=b"Bad Request")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        # Closed at once while more is coming, the connection would take the answer with it.
        self._is_dropping = True
        self._cancel_deadline()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self._close)

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

    def _cancel_read_deadline(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _close(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


class PlainProtocol(DeadlineProtocol):
    """Takes plain requests (``plain_http``) itself, between those that h11 has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held = b""
        """What waits for the rest of its body, or for the answer to the request before."""
        self._common: Scope = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._common = {
            "type": "http",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": "POST",
            "root_path": "",
        }

    def data_received(self, data: bytes) -> None:
        data = self._held + data if self._held else data
        if isinstance(self.cycle, PlainCycle) and not self.cycle.response_complete:
            self._held = data
            self.flow.pause_reading()
            return
        self._held = b""
        request = parse(data) if self._is_between_requests() else None
        if request is None:
            super().data_received(data)
            return
        self._unset_keepalive_if_required()
        if len(request.body) == request.length:
            self._answer(request)
            return
        self._held = data
        if self._deadline_state is not h11.SEND_BODY:
            self._await_request(h11.SEND_BODY)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._held and not self.transport.is_closing():
            data, self._held = self._held, b""
            self.data_received(data)

    def _is_between_requests(self) -> bool:
        conn = self.conn
        return (
            conn.their_state is h11.IDLE
            and conn.our_state is h11.IDLE
            and not conn.trailing_data[0]
            and not self._is_dropping
        )

    def _answer(self, request: PlainRequest) -> None:
        self._cancel_deadline()
        cycle = PlainCycle(
            request.body,
            scope=make_scope(request, self._common),
            conn=self.conn,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            on_response=self.on_response_complete,
        )
        self.cycle = cycle
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)


def deadline_protocol(
    header_seconds: float, body_seconds: float, read_seconds: float
) -> type[DeadlineProtocol]:
    """The protocol class with these deadlines, as uvicorn wants it: a class, not an object."""
    times = {
        "header_seconds": header_seconds,
        "body_seconds": body_seconds,
        "read_seconds": read_seconds,
    }
    return type("ConfiguredProtocol", (PlainProtocol,), times)
