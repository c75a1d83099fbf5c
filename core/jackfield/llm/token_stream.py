"""What the choices of one request gain, step by step, for one consumer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from jackfield.contracts.generation import ChoiceDelta
from jackfield.llm.run import Run, Shortcut


class TokenStream(AsyncIterator[list[ChoiceDelta]]):
    """``begin`` starts the request, when the first batch is asked for; ``end`` forgets it, once.

    A class and no generator: a generator between the consumer and the run costs a tenth of what
    a token costs.
    """

    def __init__(self, begin: Callable[[], Run], end: Callable[[Run], None]) -> None:
        self._begin = begin
        self._end = end
        self._run: Run | None = None
        self._is_closed = False

    async def __anext__(self) -> list[ChoiceDelta]:
        """All that has come since the last batch; waits until there is something. Raises as
        ``AsyncLLM.stream`` says."""
        if self._is_closed:
            raise StopAsyncIteration
        if self._run is None:
            self._run = self._begin()
        try:
            if self._run.is_taken:
                raise StopAsyncIteration
            return await self._run.take()
        except BaseException:
            await self.aclose()
            raise

    def divert(self, shortcut: Shortcut) -> None:
        """What comes while ``__anext__`` is waited for goes to ``shortcut``, where it takes it, and
        not through the consumer's task. Ends, failures and requests of several choices take the
        usual way; so does everything before the first batch."""
        if self._run is not None:
            self._run.divert(shortcut)

    async def aclose(self) -> None:
        """Nobody wants more: aborts what is still running. Once more does nothing more."""
        self._is_closed = True
        run, self._run = self._run, None
        if run is not None:
            self._end(run)
