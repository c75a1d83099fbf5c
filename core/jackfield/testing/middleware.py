"""The laws of a middleware. Subclass ``MiddlewareContract`` in a test file::

class TestMine(MiddlewareContract):
    middleware = MyMiddleware
    headers = [(b"authorization", b"Bearer k")]  # of a request that it lets pass
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ClassVar

from jackfield.contracts.serving import Application, Message, Receive, Scope, Send
from jackfield.testing.plugins import assert_conforms

PIECES = (b"data: one\n\n", b"data: two\n\n")


async def streaming_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and answers with a status, a header and two pieces."""
    message = await receive()
    assert message["body"] == b"{}"
    head = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    for piece in PIECES:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def answer_of(
    app: Application, headers: Sequence[tuple[bytes, bytes]], path: str = "/v1/completions"
) -> list[Message]:
    """What a client gets for one request."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent


class MiddlewareContract:
    """Laws that hold for every middleware that lets a request pass."""

    middleware: ClassVar[Callable[[Application], Application]]
    headers: ClassVar[Sequence[tuple[bytes, bytes]]] = ()

    def answer(self) -> list[Message]:
        """What comes of a request that passes."""
        return answer_of(type(self).middleware(streaming_app), self.headers)

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("middleware", type(self).middleware)

    def test_a_request_that_passes_gets_its_answer(self) -> None:
        start, *bodies = self.answer()
        assert (start["type"], start["status"]) == ("http.response.start", 200)
        assert b"".join(body.get("body", b"") for body in bodies) == b"".join(PIECES)
        assert not bodies[-1].get("more_body", False)

    def test_a_stream_is_not_held_back(self) -> None:
        """Each piece goes out when it comes: tokens must not wait for the end."""
        pieces = [message["body"] for message in self.answer()[1:] if message.get("body")]
        assert pieces == list(PIECES)

    def test_requests_are_independent(self) -> None:
        app = type(self).middleware(streaming_app)
        for _ in range(3):
            assert answer_of(app, self.headers)[0]["status"] == 200
