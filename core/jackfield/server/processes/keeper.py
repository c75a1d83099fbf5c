"""Keeps one engine and several API processes; serves nothing itself."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jackfield.contracts.messages import EngineReady
from jackfield.errors import ConfigError, EngineError, JackfieldError
from jackfield.llm.engine_link import EngineEvents
from jackfield.llm.supervisor import Supervisor, restart_policy
from jackfield.server.lifecycle import CLOSING_SECONDS
from jackfield.server.listening import bind_several, url
from jackfield.server.options import ServerOptions
from jackfield.server.processes.control import EngineDied, EngineServes, Failure, NoEngine, StopApi
from jackfield.server.processes.crew import Crew
from jackfield.server.startup_report import active_plugins, plugins_line, report

if TYPE_CHECKING:
    from jackfield.config.settings import Settings
    from jackfield.engine.spawning import SpawnedEngine
    from jackfield.planning import ServingPlan
    from jackfield.registry import Registry

log = logging.getLogger(__name__)

AT_ONCE_SECONDS = 2.0


def keep(
    settings: Settings,
    options: ServerOptions,
    plan: ServingPlan,
    registry: Registry,
    words: Sequence[str],
    start: float,
    spawned: SpawnedEngine | None = None,
) -> int:
    """Serves with ``--api-server-count`` processes until a signal comes; the exit status. As
    ``server.run.run`` otherwise. ``start``: when this process began."""
    check_options(settings)
    listeners = bind_several(options, settings.api_server_count)
    keeper = Keeper(settings, options, plan, registry, listeners, words, spawned)
    keeper.launch()
    try:
        return asyncio.run(keeper.run(start))
    finally:
        for listener in listeners:
            listener.close()
        if options.uds is not None:
            Path(options.uds).unlink(missing_ok=True)


def check_options(settings: Settings) -> None:
    """``ConfigError`` for what several processes cannot do; a note for what they leave out."""
    if settings.response_store != "memory":
        return
    advice = "take a store that processes share, or --response-store none"
    if "response_store" in settings.model_fields_set:
        raise ConfigError(
            f"--response-store memory is of one process, not of several (--api-server-count): "
            f"{advice}"
        )
    log.warning("/v1/responses keeps nothing with several API processes; %s", advice)


class Keeper:
    """The engine's supervisor and the crew, told of each other."""

    def __init__(
        self,
        settings: Settings,
        options: ServerOptions,
        plan: ServingPlan,
        registry: Registry,
        listeners: Sequence[socket.socket],
        words: Sequence[str],
        spawned: SpawnedEngine | None,
    ) -> None:
        self._options = options
        self._plan = plan
        self._registry = registry
        self._listener = listeners[0]
        events = EngineEvents(lambda step: None, self._lost, self._replaced)
        policy = restart_policy(settings)
        self._engine = Supervisor(plan.engine, policy, events, spawned, is_shared=True)
        self._crew = Crew(words, listeners, policy.heartbeat_seconds)
        self._signals: asyncio.Queue[int] = asyncio.Queue()

    def launch(self) -> None:
        """Spawns the engine; needs no event loop."""
        self._engine.launch()

    async def run(self, start: float) -> int:
        """The whole life. Raises the error that ends the server."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        stopped = asyncio.create_task(self._signals.get())
        living = asyncio.create_task(self._live(start))
        failing = asyncio.create_task(self._crew.wait_failed())
        try:
            await self._crew.start()
            await asyncio.wait({stopped, living, failing}, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                raise living.result()
            if failing.done():
                raise failing.result()
            return await self._drain(stopped.result())
        except JackfieldError as error:
            self._crew.tell(NoEngine(Failure.of(error)))
            await self._crew.end(CLOSING_SECONDS)
            raise
        finally:
            for task in (stopped, living, failing):
                task.cancel()
            await asyncio.wait({stopped, living, failing})
            await self._crew.end(0.0)
            await self._engine.stop()

    async def _live(self, start: float) -> JackfieldError:
        """Returns when no engine will serve any more."""
        try:
            ready = await self._engine.start()
        except JackfieldError as error:
            return error
        for line in report(
            self._plan, ready, plugins_line(active_plugins(self._plan, self._registry))
        ):
            log.info("%s", line)
        self._replaced(ready)
        await self._crew.all_ready()
        log.info(
            "serving %s on %s with %d API processes, ready in %.1f s",
            ", ".join(self._plan.served_model_names),
            url(self._options, self._listener),
            self._crew.count,
            time.monotonic() - start,
        )
        return await self._engine.wait_dead()

    def _lost(self, error: JackfieldError) -> None:
        self._crew.tell_engine(None)
        self._crew.tell(EngineDied(Failure.of(error)))

    def _replaced(self, ready: EngineReady) -> None:
        pid = self._engine.pid
        assert pid is not None, "it is serving"
        serves = EngineServes(self._engine.clients_path, pid, self._engine.num_restarts)
        self._crew.tell_engine(serves)

    async def _drain(self, number: int) -> int:
        """Running requests finish, unless a second signal comes."""
        seconds = self._options.shutdown_timeout_seconds + CLOSING_SECONDS + AT_ONCE_SECONDS
        log.info("stopping: API processes finish what runs")
        self._crew.tell(StopApi(number))
        ending = asyncio.create_task(self._crew.end(seconds))
        again = asyncio.create_task(self._signals.get())
        await asyncio.wait({ending, again}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            again.cancel()
            killed = ending.result()
            if killed:
                raise EngineError(f"{killed} API processes did not end in time and were killed")
            return 0
        self._crew.tell(StopApi(again.result()))
        ending.cancel()
        await self._crew.end(AT_ONCE_SECONDS)
        return 128 + again.result()
