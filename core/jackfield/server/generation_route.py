"""A hot route: one generation request from its bytes to its answer, past the framework."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jackfield.contracts.generation import GenerationRequest
from jackfield.errors import JackfieldError
from jackfield.server.asgi import (
    ClientDisconnected,
    Receive,
    Scope,
    Send,
    parse_json_object,
    read_body,
    send_error,
)
from jackfield.server.delivery import Answer, Frames, deliver_answer, deliver_stream
from jackfield.server.door import Door, Frontend
from jackfield.server.errors import as_request_error

log = logging.getLogger(__name__)

LARGE_BODY_BYTES = 8192
"""From here on a request is prepared in a thread: tokenizing must not hold up the others."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was checked: what to generate, and how to answer."""

    requests: Sequence[GenerationRequest]
    reply: Answer | Frames
    spelling: Mapping[str, str]
    """Fields that the client spelled otherwise: our name -> the client's."""

    async def deliver(self, llm: Door, receive: Receive, send: Send) -> None:
        """Generates and answers."""
        if isinstance(self.reply, Frames):
            await deliver_stream(llm, self.requests, self.reply, self.spelling, receive, send)
        else:
            await deliver_answer(llm, self.requests, self.reply, self.spelling, receive, send)


class Preparer(Protocol):
    """Checks a request's JSON; raises ``RequestError``. Called in the loop or in a thread."""

    def __call__(self, data: dict[str, Any], header_id: str | None) -> Prepared: ...


class GenerationRoute:
    """The ASGI endpoint of one generation route."""

    def __init__(self, frontend: Frontend, prepare: Preparer) -> None:
        self._frontend = frontend
        self._prepare = prepare

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        try:
            prepared = await self._read(scope, receive)
        except ClientDisconnected:
            return
        except Exception as error:
            if not isinstance(error, JackfieldError):
                log.exception("a request could not be prepared")
            await send_error(send, as_request_error(error))
            return
        frontend = self._frontend
        if frontend.options.log_requests:
            log_requests(prepared.requests, frontend.options.max_log_len)
        frontend.num_active += 1
        try:
            await prepared.deliver(frontend.llm, receive, send)
        finally:
            frontend.num_active -= 1

    async def _read(self, scope: Scope, receive: Receive) -> Prepared:
        # Overload is refused before the body costs anything.
        self._frontend.admit()
        body = await read_body(receive, self._frontend.options.max_body_bytes)
        data = parse_json_object(body)
        header_id = header_value(scope, b"x-request-id")
        if len(body) < LARGE_BODY_BYTES:
            return self._prepare(data, header_id)
        return await asyncio.to_thread(self._prepare, data, header_id)


def log_requests(requests: Sequence[GenerationRequest], max_length: int | None) -> None:
    """A line for each prompt; only where somebody asked for it."""
    for request in requests:
        log.info(
            "request %s: prompt %r, ids %s, %s",
            request.request_id,
            request.prompt_text[:max_length] if request.prompt_text is not None else None,
            list(request.prompt_token_ids[:max_length]),
            request.sampling,
        )


def header_value(scope: Scope, name: bytes) -> str | None:
    """A header's value if it is printable ASCII of at most 128 characters."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text if len(text) <= 128 and text.isascii() and text.isprintable() else None
    return None
