"""The lines of a batch through the application, many at a time, answered in their order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jackfield.errors import JackfieldError
from jackfield.server.asgi import ASGIApp, Message, Scope
from jackfield.server.batch.lines import (
    BatchRequest,
    LineError,
    answer_line,
    error_line,
    parse_line,
)
from jackfield.server.door import Frontend

log = logging.getLogger(__name__)

MAX_PENDING_BYTES = 64 << 20
"""Lines read and not answered yet, unless a single one is longer."""
_POLL_SECONDS = 0.2

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Tally:
    """What became of the lines."""

    num_answered: int = 0
    num_failed: int = 0

    def __str__(self) -> str:
        return f"{self.num_answered} requests answered, {self.num_failed} failed"


class Outcome(NamedTuple):
    """One line of the output."""

    line: bytes
    is_answer: bool


class Batch:
    """Runs lines through the application as if each had come over HTTP.

    At most ``window`` lines are read and not yet written: what is kept in memory. As answers are
    written in order, one long answer holds up the others only when it is ``window`` lines behind.
    """

    def __init__(self, app: ASGIApp, frontend: Frontend, window: int) -> None:
        self._app = app
        self._frontend = frontend
        self._window = window
        self._headers: Headers = [(b"content-type", b"application/json")]
        keys = frontend.options.api_keys
        if keys:
            self._headers = [*self._headers, (b"authorization", b"Bearer " + keys[0].encode())]

    async def run(
        self,
        lines: Iterable[bytes],
        write: Callable[[bytes], object],
        on_written: Callable[[], object],
        death: asyncio.Task[JackfieldError],
    ) -> Tally:
        """Answers every line. ``death`` ends when the engine is gone for good, with the error that
        is then raised."""
        tally = Tally()
        waiting: deque[tuple[asyncio.Task[Outcome], int]] = deque()
        num_bytes = 0

        async def write_first() -> None:
            nonlocal num_bytes
            task, length = waiting[0]
            await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
            if death.done() and not task.done():
                raise death.result()
            waiting.popleft()
            num_bytes -= length
            outcome = task.result()
            write(outcome.line)
            on_written()
            tally.num_answered += outcome.is_answer
            tally.num_failed += not outcome.is_answer

        try:
            for line in lines:
                waiting.append((asyncio.create_task(self._outcome(line)), len(line)))
                num_bytes += len(line)
                await asyncio.sleep(0)
                while waiting and (
                    waiting[0][0].done()
                    or len(waiting) >= self._window
                    or num_bytes > MAX_PENDING_BYTES
                ):
                    await write_first()
            while waiting:
                await write_first()
        finally:
            for task, _ in waiting:
                task.cancel()
            await asyncio.gather(*(task for task, _ in waiting), return_exceptions=True)
        return tally

    async def _outcome(self, line: bytes) -> Outcome:
        """The output of one line, whatever it is."""
        limit = self._frontend.options.max_body_bytes
        try:
            if len(line) > limit:
                raise LineError("line_too_long", f"The line is longer than {limit} bytes")
            request = parse_line(line)
        except LineError as error:
            return Outcome(error_line(error), is_answer=False)
        # An engine that has died is being replaced: no line is refused for that.
        while not self._frontend.is_ready:
            await asyncio.sleep(_POLL_SECONDS)
        try:
            status, body = await self._answer(request)
            return Outcome(answer_line(request, status, body), is_answer=status < 400)
        except Exception:
            log.exception("line %r could not be answered", request.custom_id)
            failed = LineError(
                "internal_error", "The server failed to handle the request", request.custom_id
            )
            return Outcome(error_line(failed), is_answer=False)

    async def _answer(self, request: BatchRequest) -> tuple[int, bytes]:
        """Status and body of the application's answer."""
        bodies = [request.body]
        never = asyncio.Event()
        status, parts = 0, []

        async def receive() -> Message:
            if bodies:
                return {"type": "http.request", "body": bodies.pop(), "more_body": False}
            # The client waits for its answer: it never disconnects.
            await never.wait()
            raise AssertionError("nobody sets it")

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        await self._app(self._scope(request), receive, send)
        return status, b"".join(parts)

    def _scope(self, request: BatchRequest) -> Scope:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [*self._headers, (b"content-length", b"%d" % len(request.body))],
            "client": None,
            "server": None,
        }
        return scope
