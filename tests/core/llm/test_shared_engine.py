"""Several doors to one engine that somebody else keeps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from tests.core.llm.test_supervision import (
    POLICY,
    first_deltas,
    request,
    serving_plan,
    tokens,
    until_ready,
)
from tests.waiting import until

from jackfield.contracts.messages import EngineReady
from jackfield.engine.clients import first_key
from jackfield.errors import EngineError, EngineKilledError, JackfieldError
from jackfield.llm import AsyncLLM
from jackfield.llm.engine_link import EngineEvents, EngineLink
from jackfield.llm.shared_engine import SharedEngine
from jackfield.llm.supervisor import Supervisor
from jackfield.registry import Registry
from jackfield.testing.simulated_worker import continuation


class Keeper:
    """Keeps an engine for two doors, and tells them of it."""

    def __init__(self, worker: str, **changes: Any) -> None:
        self.plan = serving_plan(worker, **changes)
        self.links: list[SharedEngine] = []
        events = EngineEvents(lambda step: None, self.lost, self.replaced)
        self.supervisor = Supervisor(self.plan.engine, POLICY, events, is_shared=True)
        self.doors = [self._door(number) for number in (1, 2)]

    def _door(self, number: int) -> AsyncLLM:
        link = partial(self._link, number)
        return AsyncLLM(self.plan, Registry(), link=link, first_key=first_key(number))

    def _link(self, number: int, events: EngineEvents) -> EngineLink:
        self.links.append(SharedEngine(number, events))
        return self.links[-1]

    def lost(self, error: JackfieldError) -> None:
        for link in self.links:
            link.engine_died(error)

    def replaced(self, ready: EngineReady) -> None:
        assert self.supervisor.pid is not None
        for link in self.links:
            path = self.supervisor.clients_path
            link.engine_serves(path, self.supervisor.pid, self.supervisor.num_restarts)


@asynccontextmanager
async def kept(worker: str, **changes: Any) -> AsyncIterator[Keeper]:
    keeper = Keeper(worker, **changes)
    keeper.replaced(await keeper.supervisor.start())
    try:
        for door in keeper.doors:
            await door.start()
        yield keeper
    finally:
        for door in keeper.doors:
            await door.stop()
        await keeper.supervisor.stop()


async def test_each_door_gets_its_own_answers() -> None:
    async with kept("NotedWorker") as keeper:
        wanted = [(door, [key]) for key in range(1, 9) for door in keeper.doors]
        answers = await asyncio.gather(
            *[door.collect(request(prompt, 12)) for door, prompt in wanted]
        )
        for (_, prompt), deltas in zip(wanted, answers, strict=True):
            assert tokens(deltas) == continuation(prompt, 12, 97)


async def test_a_killed_engine_is_lost_and_replaced_for_every_door() -> None:
    async with kept("SlowWorker", max_num_seqs=2) as keeper:
        streams = []
        for number, door in enumerate(keeper.doors):
            seen = asyncio.Event()
            streams.append(asyncio.create_task(first_deltas(door, request([number + 1], 80), seen)))
            await seen.wait()
        waiting = [
            asyncio.create_task(door.collect(request([key], 5)))
            for key, door in enumerate(keeper.doors, start=20)
        ]
        await asyncio.sleep(0.1)
        assert keeper.supervisor.pid is not None
        os.kill(keeper.supervisor.pid, signal.SIGKILL)
        for stream in streams:
            await stream
        assert not any(door.is_ready for door in keeper.doors)
        for key, task in enumerate(waiting, start=20):
            assert tokens(await task) == continuation([key], 5, 97)
        for door in keeper.doors:
            await until_ready(door)
            assert door.num_restarts == 1 and door.engine_pid == keeper.supervisor.pid


async def test_a_door_whose_connection_breaks_comes_back_to_the_same_engine() -> None:
    async with kept("SlowWorker") as keeper:
        door, link = keeper.doors[0], keeper.links[0]
        seen = asyncio.Event()
        stream = asyncio.create_task(first_deltas(door, request([1], 80), seen))
        await seen.wait()
        waiting = asyncio.create_task(door.collect(request([2], 5)))
        assert link._protocol is not None
        link._protocol.close()
        await stream
        assert tokens(await waiting) == continuation([2], 5, 97)
        assert keeper.supervisor.num_restarts == 0
        assert tokens(await keeper.doors[1].collect(request([3], 5))) == continuation([3], 5, 97)


async def test_all_doors_sleep_and_wake_together() -> None:
    async with kept("SleepyWorker") as keeper:
        first, second = keeper.doors
        await first.sleep(1)
        await until(lambda: second.is_asleep)
        with pytest.raises(EngineError, match="sleeps"):
            await second.collect(request([1], 2))
        await second.wake_up()
        await until_ready(first)
        assert tokens(await first.collect(request([1], 2))) == continuation([1], 2, 97)


async def test_doors_wait_for_the_first_engine_and_hear_that_there_is_none() -> None:
    keeper = Keeper("NotedWorker")
    starting = [asyncio.create_task(door.start()) for door in keeper.doors]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in starting)
    for link in keeper.links:
        link.no_engine(EngineKilledError("it was killed"))
    for task, door in zip(starting, keeper.doors, strict=True):
        with pytest.raises(EngineKilledError, match="was killed"):
            await task
        assert str(await door.wait_dead()) == "it was killed"
