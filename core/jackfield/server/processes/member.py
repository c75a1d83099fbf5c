"""One API process among several: serves, and does what its keeper says."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import socket
from functools import partial
from typing import TYPE_CHECKING

from jackfield.contracts.messages import EngineReady
from jackfield.engine.clients import first_key
from jackfield.engine.garbage_collection import collect_rarely, settle
from jackfield.errors import JackfieldError
from jackfield.llm import AsyncLLM
from jackfield.llm.engine_link import EngineEvents, EngineLink
from jackfield.llm.shared_engine import SharedEngine
from jackfield.server.assembly import event_loop, make_service
from jackfield.server.options import ServerOptions, options_from_settings
from jackfield.server.processes.control import (
    Alive,
    ApiReady,
    Control,
    EngineDied,
    EngineServes,
    NoEngine,
    Snapshots,
    StartApi,
    StopApi,
    TellAlive,
    TellSnapshot,
    ToApi,
)
from jackfield.server.processes.siblings import Siblings
from jackfield.server.startup_report import active_plugins

if TYPE_CHECKING:
    from jackfield.config.settings import Settings
    from jackfield.hooks import Hooks
    from jackfield.planning import ServingPlan
    from jackfield.registry import Registry

PATIENCE_SECONDS = 10.0
"""Clients of a process that died find its successor when that can answer."""
ORPHANED = 3
"""Exit status where the keeper is gone."""


def serve(
    settings: Settings,
    plan: ServingPlan,
    registry: Registry,
    hooks: Hooks,
    start: StartApi,
    control: Control[ToApi],
    listener: socket.socket,
) -> int:
    """Serves until the keeper says otherwise; returns the exit status, or raises what is wrong."""
    options = member_options(options_from_settings(settings), start)
    with hooks.running(settings), event_loop(options) as runner:
        member = Member(start, control)
        return runner.run(member.serve(plan, registry, hooks, options, listener))


def member_options(options: ServerOptions, start: StartApi) -> ServerOptions:
    """The options of one process among several."""
    return dataclasses.replace(
        options,
        log_stats=options.log_stats and start.logs_throughput,
        response_store=shared_store(options),
    )


def shared_store(options: ServerOptions) -> str:
    """A store in the memory of one process would answer one request in a few."""
    return "none" if options.response_store == "memory" else options.response_store


class Member:
    """What the keeper says, to whom it is meant."""

    def __init__(self, start: StartApi, control: Control[ToApi]) -> None:
        self._client, self._replaces = start.client, start.replaces
        self._control = control
        self._siblings = Siblings(control)
        self._signals: asyncio.Queue[int] = asyncio.Queue()
        self._engine: SharedEngine | None = None

    async def serve(
        self,
        plan: ServingPlan,
        registry: Registry,
        hooks: Hooks,
        options: ServerOptions,
        listener: socket.socket,
    ) -> int:
        """The service's whole life."""
        llm = AsyncLLM(plan, registry, link=self._link, first_key=first_key(self._client))
        service = make_service(
            llm,
            options,
            listener,
            hooks,
            active_plugins(plan, registry),
            self._tell_ready,
            signals=self._signals,
            siblings=self._siblings,
            patience_seconds=PATIENCE_SECONDS if self._replaces else 0.0,
        )
        collect_rarely()
        settle()
        # Without its keeper nobody would replace the engine, or end this process.
        await self._control.attach(self._obey, partial(os._exit, ORPHANED))
        return await service.run()

    def _link(self, events: EngineEvents) -> EngineLink:
        self._engine = SharedEngine(self._client, events)
        return self._engine

    def _tell_ready(self, ready: EngineReady) -> None:
        gc.freeze()
        self._control.send(ApiReady())

    def _obey(self, message: ToApi) -> None:
        engine = self._engine
        assert engine is not None, "attached once it is there"
        match message:
            case EngineServes(path, pid, num_restarts):
                engine.engine_serves(path, pid, num_restarts)
            case EngineDied(failure):
                engine.engine_died(failure.error())
            case NoEngine(failure):
                engine.no_engine(failure.error())
            case StopApi(number):
                self._signals.put_nowait(number)
            case TellSnapshot(number):
                self._siblings.answer(number)
            case TellAlive():
                self._control.send(Alive())
            case Snapshots():
                self._siblings.take(message)
            case StartApi():
                raise JackfieldError("an API process was started twice")
