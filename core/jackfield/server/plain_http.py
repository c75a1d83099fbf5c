"""The plain case of HTTP/1.1, past the general state machine: a POST that is all there, an answer.

Most requests of an API are one kind: ``POST``, a head without anything rare, ``Content-Length``, a
short body. ``parse`` takes exactly those, and is stricter than the standard; whatever it does not
take goes to h11 as if nothing had been looked at. ``PlainCycle`` writes the answer: the head goes
out with the first piece of the body, a chunk is framed here. Beside h11 that is a third of the CPU
time of a short answer, and of a chunk more than half (``bench/server_overhead.py``).
"""

from __future__ import annotations

import asyncio
import re
import weakref
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

from uvicorn.protocols.http.h11_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from jackfield.server.asgi import WRITER, Headers, Message, Scope

MAX_HEAD_BYTES = 16 << 10
MAX_BODY_BYTES = 64 << 10
"""A longer body goes to h11: it can be refused, and read slowly, before it is all there."""

# Possessive, and each byte in one way: what does not match costs no more than what does.
_FIELD = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n"
_HEAD = re.compile(rb"POST (/[\x21-\x7e]*+) HTTP/1\.1\r\n((?:%b)++)\r\n" % _FIELD)
_LENGTH = re.compile(rb"[0-9]{1,6}")
_RARE = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"})
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})


class PlainRequest(NamedTuple):
    """A request whose head is there; ``body`` is short of ``length`` bytes until all has come."""

    target: bytes
    headers: Headers
    body: bytes
    length: int


def parse(data: bytes | bytearray) -> PlainRequest | None:
    """The plain request that ``data`` begins with; None for everything else."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
    if end < 4:
        return None
    found = _HEAD.fullmatch(data, 0, end)
    if found is None:
        return None
    headers: Headers = []
    length = num_hosts = 0
    num_lengths = 0
    for line in found[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers.append((name, value))
        if name == b"content-length":
            if _LENGTH.fullmatch(value) is None:
                return None
            length = int(value)
            num_lengths += 1
        elif name == b"host":
            num_hosts += 1
        elif name in _RARE or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
    if num_lengths != 1 or num_hosts != 1 or length > MAX_BODY_BYTES or len(data) > end + length:
        return None
    return PlainRequest(found[1], headers, bytes(data[end:]), length)


class PlainCycle(RequestResponseCycle):
    """One plain request and its answer, with the life that uvicorn gives to a cycle."""

    def __init__(self, body: bytes, **parts: Any) -> None:
        super().__init__(message_event=asyncio.Event(), **parts)
        # Weak, because the scope is the cycle's: together they would be garbage to be looked for.
        self.scope["extensions"] = {WRITER: {"reference": weakref.ref(self)}}
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._head = b""
        self._left: int | None = None
        """Bytes of the body still to come, as its length was told; None: it goes out in chunks."""

    async def receive(self) -> Any:
        """The whole body; from then on, the end of the connection or of the answer."""
        if self._request is not None:
            request, self._request = self._request, None
            return request
        if not (self.disconnected or self.response_complete):
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Takes the head, and pieces of the body, which it writes at once."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._start(message)
        elif self.response_complete or message["type"] != "http.response.body":
            raise RuntimeError(f"{message['type']!r} does not belong here in an answer")
        else:
            self._write(message.get("body", b""), message.get("more_body", False))

    @property
    def is_writable(self) -> bool:
        """A ``Writer``'s."""
        is_open = self.response_started and not (self.response_complete or self.disconnected)
        return is_open and not self.flow.write_paused

    def write_now(self, data: bytes) -> None:
        """A ``Writer``'s."""
        self._write(data, True)

    def _start(self, message: Message) -> None:
        if message["type"] != "http.response.start":
            raise RuntimeError(f"an answer does not start with {message['type']!r}")
        status: int = message["status"]
        if self.access_log:
            path, method = get_path_with_query_string(self.scope), self.scope["method"]
            told = (get_client_addr(self.scope), method, path, self.scope["http_version"], status)
            self.access_logger.info('%s - "%s %s HTTP/%s" %d', *told)
        headers = [*self.default_headers, *message.get("headers", ())]
        self._left = 0 if status in _WITHOUT_BODY else None
        for name, value in headers:
            lower = name.lower()
            if lower == b"content-length":
                self._left = int(value)
            elif lower == b"connection" and value.lower() == b"close":
                self.keep_alive = False
        if self._left is None:
            headers.append((b"transfer-encoding", b"chunked"))
        self._head = make_head(status, headers)
        self.response_started = True

    def _write(self, body: bytes, more: bool) -> None:
        if self._left is None:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        else:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body of an answer is not as long as its head says")
        if self._head:
            body = self._head + body
            self._head = b""
        if body:
            self.transport.write(body)
        if not more:
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def make_head(status: int, headers: Headers) -> bytes:
    """The head of an answer; ``ValueError`` for a field that would be more than one line."""
    lines = [b"%b: %b" % field for field in headers]
    head = b"\r\n".join([b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"")), *lines, b"\r\n"])
    if head.count(b"\n") != len(lines) + 2 or head.count(b"\r") != len(lines) + 2:
        raise ValueError("a header field of an answer has a line break")
    return head


def make_scope(request: PlainRequest, common: Scope) -> Scope:
    """The ASGI scope; ``common`` is what all requests of a connection share."""
    raw_path, _, query = request.target.partition(b"?")
    return {
        **common,
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": query,
        "headers": request.headers,
        "state": {},
    }
