"""A hot route: one generation request from its bytes to its answer, past the framework."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from jackfield.contracts.generation import GenerationRequest
from jackfield.contracts.pooling import PoolingRequest
from jackfield.errors import JackfieldError, RequestError
from jackfield.server.asgi import (
    ClientDisconnected,
    Exchange,
    Receive,
    Scope,
    Send,
    off_loop,
    parse_json_object,
    read_body,
    send_error,
)
from jackfield.server.delivery import Answer, Frames, deliver_answer, deliver_stream
from jackfield.server.door import Frontend, Generation, new_id
from jackfield.server.errors import as_request_error
from jackfield.server.request_limits import check_limits
from jackfield.server.spellings import (
    REFUSED,
    Refusal,
    Spelling,
    respelled,
    settle_spellings,
)

log = logging.getLogger(__name__)


class Deliverable(Protocol):
    """A request that was checked: what is to be computed, and the answer."""

    @property
    def requests(self) -> Sequence[GenerationRequest | PoolingRequest]: ...

    async def deliver(self, llm: Generation, exchange: Exchange) -> None:
        """Computes and answers."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was checked: what to generate, and how to answer."""

    requests: Sequence[GenerationRequest]
    reply: Answer | Frames
    spelling: Spelling

    def deliver(self, llm: Generation, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """Generates and answers."""
        if isinstance(self.reply, Frames):
            return deliver_stream(llm, self.requests, self.reply, self.spelling, exchange)
        return deliver_answer(llm, self.requests, self.reply, self.spelling, exchange)


Prepare = Callable[[dict[str, Any], int, str | None], Awaitable[Deliverable]]
"""A request's JSON, its length in bytes and the client's ``X-Request-Id`` to what is to be done;
raises ``RequestError`` for everything that can be known in front."""


class Preparer(ABC):
    """Checks a request's JSON and says what to generate and how to answer; one for each route."""

    fields: ClassVar[frozenset[str]]
    """The names that the route's request model has."""

    refused: ClassVar[Mapping[str, Refusal]] = REFUSED
    """Known fields that the route cannot honour."""

    async def __call__(
        self, data: dict[str, Any], num_bytes: int, header_id: str | None
    ) -> Deliverable:
        """As ``Prepare`` has it."""
        return await off_loop(num_bytes, lambda: self.settled(data, header_id))

    def settled(self, data: dict[str, Any], header_id: str | None) -> Deliverable:
        """``prepare`` with the fields' own names; errors come in the client's spelling."""
        spelling = settle_spellings(data, self.fields, refused=self.refused)
        try:
            return self.prepare(data, header_id, spelling)
        except RequestError as error:
            raise respelled(error, spelling) from None

    @abstractmethod
    def prepare(
        self, data: dict[str, Any], header_id: str | None, spelling: Spelling
    ) -> Deliverable:
        """The route's own part, in the loop or in a thread; ``data`` has no unknown field."""


def answer_id(kind: str, given: str | None, header_id: str | None) -> str:
    """The answer's id: ``kind-`` and the id in the body, the one in the header, or a new one."""
    own = given if given is not None else header_id
    return new_id(kind) if own is None else kind + own


class GenerationRoute:
    """The ASGI endpoint of one generation route."""

    def __init__(self, frontend: Frontend, prepare: Prepare, llm: Generation) -> None:
        self._frontend = frontend
        self._prepare = prepare
        self._llm = llm

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        try:
            prepared = await self._read(scope, receive)
        except ClientDisconnected:
            return
        except Exception as error:
            if not isinstance(error, JackfieldError):
                log.exception("a request could not be prepared")
            await send_error(scope, send, as_request_error(error))
            return
        frontend = self._frontend
        if frontend.options.log_requests:
            log_requests(prepared.requests, frontend.options.max_log_len)
        frontend.num_active += 1
        try:
            await prepared.deliver(self._llm, Exchange(scope, receive, send))
        finally:
            frontend.num_active -= 1

    async def _read(self, scope: Scope, receive: Receive) -> Deliverable:
        # Overload is refused before the body costs anything.
        self._frontend.admit()
        body = await read_body(receive, self._frontend.options.max_body_bytes)
        data = await off_loop(len(body), lambda: parse_json_object(body))
        check_limits(data, self._frontend.options)
        return await self._prepare(data, len(body), header_value(scope, b"x-request-id"))


def log_requests(
    requests: Sequence[GenerationRequest | PoolingRequest], max_length: int | None
) -> None:
    """A line for each prompt; only where somebody asked for it."""
    for request in requests:
        log.info(
            "request %s: prompt %r, ids %s, %s",
            request.request_id,
            request.prompt_text[:max_length] if request.prompt_text is not None else None,
            list(request.prompt_token_ids[:max_length]),
            "pooled" if isinstance(request, PoolingRequest) else request.sampling,
        )


def header_value(scope: Scope, name: bytes) -> str | None:
    """A header's value if it is printable ASCII of at most 128 characters."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text if len(text) <= 128 and text.isascii() and text.isprintable() else None
    return None
