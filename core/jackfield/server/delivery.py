"""Runs the prompts of one request and writes what they yield; a client that leaves ends them."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, cast

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.errors import JackfieldError, RequestError
from jackfield.llm.token_stream import TokenStream
from jackfield.server.asgi import Exchange, Receive, Send, Writer, send_answer, send_error
from jackfield.server.door import Generation
from jackfield.server.errors import as_request_error, error_object
from jackfield.server.json_bytes import dumps
from jackfield.server.spellings import Spelling, respelled

log = logging.getLogger(__name__)

Request = TypeVar("Request")
Outcome = TypeVar("Outcome")

LARGE_ANSWER_DELTAS = 4096
"""From here on an answer is written in a thread: it must not hold up the others."""

_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Reply:
    """What becomes of a request's deltas."""

    async def completed(self) -> None:
        """Called once every choice has finished, before the client has the end of the answer."""


class Answer(Reply, ABC):
    """Gathers deltas into one body."""

    @abstractmethod
    def add(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> None:
        """Takes deltas of prompt number ``prompt``."""

    @abstractmethod
    def body(self) -> bytes:
        """The answer, once every choice has finished."""


class Frames(Reply, ABC):
    """Turns deltas into server-sent events."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether every choice has finished."""

    @abstractmethod
    def feed(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> bytes:
        """The frames of these deltas; may be empty."""

    @abstractmethod
    def ending(self) -> bytes:
        """What follows the last choice."""

    def failure(self, error: RequestError) -> bytes:
        """The end of a stream that has begun and cannot go on."""
        return b"data: %b\n\ndata: [DONE]\n\n" % dumps(error_object(error))


class ClientWatch:
    """While entered: a client that disconnects cancels the task that entered.

    The cancellation ends here: the block is left quietly, ``left`` is set.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.left = False

    async def __aenter__(self) -> ClientWatch:
        task = asyncio.current_task()
        assert task is not None, "runs in a task"
        self._task = task
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        # A response that is complete also ends ``receive``: from here on it means nothing.
        self._watcher.cancel()
        if not self.left:
            return False
        # A cancel from elsewhere may have come at the same time; it goes on.
        others = self._task.uncancel()
        return kind is not None and issubclass(kind, asyncio.CancelledError) and not others

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._task.cancel()


async def deliver_answer(
    llm: Generation,
    requests: Sequence[GenerationRequest],
    answer: Answer,
    spelling: Spelling,
    exchange: Exchange,
) -> None:
    """One JSON answer once all prompts have finished."""

    def written(gathered: Sequence[Sequence[ChoiceDelta]]) -> bytes:
        for prompt, deltas in enumerate(gathered):
            answer.add(prompt, deltas)
        return answer.body()

    async def make() -> bytes:
        gathered = await run_all(llm.collect, requests)
        is_large = sum(map(len, gathered)) >= LARGE_ANSWER_DELTAS or any(
            request.sampling.prompt_logprobs is not None for request in requests
        )
        body = await asyncio.to_thread(written, gathered) if is_large else written(gathered)
        await answer.completed()
        return body

    await deliver_body(make, spelling, exchange)


async def deliver_body(
    make: Callable[[], Awaitable[bytes]], spelling: Spelling, exchange: Exchange
) -> None:
    """The JSON that ``make`` gives, or its error; a client that leaves cancels it."""
    scope, receive, send = exchange
    async with ClientWatch(receive):
        try:
            body = await make()
        except Exception as error:
            await send_error(scope, send, _shown(error, spelling))
        else:
            await send_answer(send, body)


async def run_all(
    run: Callable[[Request], Coroutine[Any, Any, Outcome]], requests: Sequence[Request]
) -> list[Outcome]:
    """What all requests end in; the first error ends the others."""
    if len(requests) == 1:
        return [await run(requests[0])]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(request)) for request in requests]
    except* Exception as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, Exception), "except* selects exceptions"
    return first


async def deliver_stream(
    llm: Generation,
    requests: Sequence[GenerationRequest],
    frames: Frames,
    spelling: Spelling,
    exchange: Exchange,
) -> None:
    """Server-sent events. The response starts with the first token: an error before it is a
    status; one after it is an event, the last before ``[DONE]``."""
    scope, receive, send = exchange
    events = _EventStream(frames, send, exchange.writer)
    async with ClientWatch(receive):
        try:
            if len(requests) == 1:
                async with _closing(llm.stream(requests[0])) as stream:
                    async for batch in stream:
                        await events.write(0, batch)
                        if events.writer is not None and isinstance(stream, TokenStream):
                            stream.divert(events.write_now)
            else:
                async with aclosing(_merged(llm, requests)) as streams:
                    async for prompt, batch in streams:
                        await events.write(prompt, batch)
        except Exception as error:
            shown = _shown(error, spelling)
            if events.has_begun:
                await send({"type": "http.response.body", "body": frames.failure(shown)})
            else:
                await send_error(scope, send, shown)


class _EventStream:
    """The frames of one answer on their way out; its head goes out with the first of them."""

    def __init__(self, frames: Frames, send: Send, writer: Writer | None) -> None:
        self.has_begun = False
        self.writer = writer
        self._frames = frames
        self._send = send

    def write_now(self, delta: ChoiceDelta) -> bool:
        """Sends what a running delta of the only prompt gives; a ``Shortcut``, for a stream that
        has begun."""
        if self.writer is None or not self.writer.is_writable:
            return False
        data = self._frames.feed(0, (delta,))
        if data:
            self.writer.write_now(data)
        return True

    async def write(self, prompt: int, batch: Sequence[ChoiceDelta]) -> None:
        """Sends what the deltas of prompt number ``prompt`` give; waits for a slow client."""
        frames, send = self._frames, self._send
        data = frames.feed(prompt, batch)
        done = frames.done
        if done:
            await frames.completed()
            data += frames.ending()
        elif not data:
            return
        if not self.has_begun:
            self.has_begun = True
            # A new list each time: middleware adds to it.
            headers = list(_STREAM_HEADERS)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": not done})


def _shown(error: Exception, spelling: Spelling) -> RequestError:
    if not isinstance(error, JackfieldError):
        log.error("a request failed", exc_info=error)
    return respelled(as_request_error(error), spelling)


async def _merged(
    llm: Generation, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[tuple[int, list[ChoiceDelta]]]:
    """The deltas of all prompts with their prompt's number; closing it closes every stream."""
    pending: list[tuple[int, list[ChoiceDelta]]] = []
    wake = asyncio.Event()

    async def pump(prompt: int, request: GenerationRequest) -> None:
        try:
            async with _closing(llm.stream(request)) as stream:
                async for batch in stream:
                    pending.append((prompt, batch))
                    wake.set()
        finally:
            wake.set()

    tasks = [asyncio.create_task(pump(*numbered)) for numbered in enumerate(requests)]
    try:
        while pending or not all(task.done() for task in tasks):
            await wake.wait()
            wake.clear()
            taken = pending.copy()
            pending.clear()
            for item in taken:
                yield item
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _closing(
    stream: AsyncIterator[list[ChoiceDelta]],
) -> aclosing[AsyncGenerator[list[ChoiceDelta]]]:
    """``Generation.stream`` gives what has ``aclose``: closed as soon as its consumer ends."""
    return aclosing(cast("AsyncGenerator[list[ChoiceDelta]]", stream))
