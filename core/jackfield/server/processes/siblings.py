"""The other API processes, as one of them sees them: for what is told of all together."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection
from contextlib import suppress

from jackfield.server.processes.control import (
    AskSnapshots,
    Control,
    Snapshot,
    Snapshots,
    ToApi,
)
from jackfield.server.processes.merged_metrics import merged

ANSWER_SECONDS = 2.0
"""After so long a process tells of itself alone."""


class Siblings:
    """Asks the keeper for what the others say, and answers it in turn."""

    def __init__(self, control: Control[ToApi]) -> None:
        self._control = control
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Snapshots]] = {}
        self._expose: Callable[[], bytes] = bytes
        self._count_active: Callable[[], int] = int
        self._of_engine: Collection[str] = ()

    def tell(
        self,
        expose: Callable[[], bytes],
        count_active: Callable[[], int],
        of_engine: Collection[str],
    ) -> None:
        """How this process makes what it tells: its metrics, those of them that it has from the
        engine, and how many requests are under way."""
        self._expose, self._count_active, self._of_engine = expose, count_active, of_engine

    def answer(self, number: int) -> None:
        """Sends the keeper what it asked for."""
        self._control.send(Snapshot(number, self._expose(), self._count_active()))

    def take(self, snapshots: Snapshots) -> None:
        """The keeper's answer."""
        asked = self._asked.get(snapshots.number)
        if asked is not None and not asked.done():
            asked.set_result(snapshots)

    async def metrics(self) -> bytes:
        """The metrics of all processes, in the exposition format."""
        told = await self._ask()
        live = [self._expose(), *(each.metrics for each in told.others)]
        return merged(live, told.ended, self._of_engine)

    async def num_active(self) -> int:
        """Generation requests under way in all processes."""
        told = await self._ask()
        return self._count_active() + sum(each.num_active for each in told.others)

    async def _ask(self) -> Snapshots:
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._control.send(AskSnapshots(number))
        try:
            with suppress(TimeoutError):
                return await asyncio.wait_for(asked, ANSWER_SECONDS)
            return Snapshots(number, [], [])
        finally:
            del self._asked[number]
