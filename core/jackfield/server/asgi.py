"""The small part of ASGI that the hot routes speak themselves: bodies in, answers out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from jackfield.errors import RequestError
from jackfield.server.errors import BodyTooLargeError, error_body, error_headers
from jackfield.server.json_bytes import loads

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
T = TypeVar("T")

MAX_NESTING = 64
MAX_BRACKETS = 1 << 20
"""Opening ones, those in texts included: a million lists take half a second of everybody's."""
LARGE_BODY_BYTES = 8192
"""From here on a body is read, and a request prepared, in a thread: tokenizing must not hold up the
others."""

WRITER = "jackfield.writer"
"""An ASGI extension of ours; its ``reference`` is a weak one to a ``Writer``. It is there where
nobody between server and route looks at the bodies of answers."""


class Writer(Protocol):
    """The way of an answer's body past ``send``, for pieces that must not wait."""

    @property
    def is_writable(self) -> bool:
        """Whether the body has begun, goes on, and ``send`` would not have to wait."""
        ...

    def write_now(self, data: bytes) -> None:
        """Writes a piece of the body; where it ``is_writable``."""
        ...


class Exchange(NamedTuple):
    """One HTTP request with the two ends of its connection."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def writer(self) -> Writer | None:
        """The answer's, if the server has one."""
        reference = self.scope.get("extensions", {}).get(WRITER, {}).get("reference")
        writer: Writer | None = None if reference is None else reference()
        return writer


class ClientDisconnected(Exception):
    """The client left before its request was answered."""


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole body; ``BodyTooLargeError`` as soon as it is longer than ``max_bytes``."""
    parts: list[bytes] = []
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > max_bytes:
            raise BodyTooLargeError(f"The request body is longer than {max_bytes} bytes")
        more = message.get("more_body", False)
    return b"".join(parts)


async def read_json_object(receive: Receive, max_bytes: int) -> dict[str, Any]:
    """The whole body as a JSON object, whatever its content type says."""
    body = await read_body(receive, max_bytes)
    return await off_loop(len(body), lambda: parse_json_object(body))


async def off_loop(num_bytes: int, work: Callable[[], T]) -> T:
    """Does the work at once where there is little of it, else in a thread."""
    if num_bytes < LARGE_BODY_BYTES:
        return work()
    return await asyncio.to_thread(work)


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Strict as ``json_bytes`` says; containers may nest ``MAX_NESTING`` deep.
    """
    num_brackets = body.count(b"[") + body.count(b"{")
    if num_brackets > MAX_BRACKETS:
        raise RequestError(f"The request body has more than {MAX_BRACKETS} brackets")
    value = loads(body)
    if type(value) is not dict:
        raise RequestError("The request body must be a JSON object")
    # No more brackets than the limit means no deeper nesting: true of almost every request.
    if num_brackets > MAX_NESTING:
        _check_nesting(value)
    return value


def _check_nesting(value: Any) -> None:
    level = [value]
    for _ in range(MAX_NESTING):
        below: list[Any] = []
        for container in level:
            items = container.values() if type(container) is dict else container
            below.extend(item for item in items if type(item) is dict or type(item) is list)
        if not below:
            return
        level = below
    raise RequestError(f"The request body nests more than {MAX_NESTING} levels deep")


async def send_answer(
    send: Send,
    body: bytes,
    *,
    status: int = 200,
    content_type: bytes = b"application/json",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """One whole answer with its length."""
    head = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def send_error(scope: Scope, send: Send, error: RequestError) -> None:
    """An error as a whole answer, in the shape of its path."""
    body = error_body(error, route_path(scope))
    await send_answer(send, body, status=error.status, headers=error_headers(error))


def route_path(scope: Scope) -> str:
    """The path below ``root_path``: what routes and authentication decide on."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path
