"""``jackfield serve``: the engine process first, then everything else while it loads."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jackfield.contracts.messages import EngineReady
from jackfield.engine.garbage_collection import settle
from jackfield.errors import JackfieldError
from jackfield.llm import AsyncLLM
from jackfield.llm.supervisor import restart_policy
from jackfield.server.listening import bind, url
from jackfield.server.options import ServerOptions, options_from_settings
from jackfield.server.startup_report import (
    active_plugins,
    plugins_line,
    process_start,
    report,
    timeline,
)

if TYPE_CHECKING:
    from jackfield.config.settings import Settings
    from jackfield.engine.spawning import SpawnedEngine
    from jackfield.hooks import Hooks
    from jackfield.planning import ServingPlan
    from jackfield.registry import Registry

log = logging.getLogger(__name__)


def run(
    settings: Settings,
    plan: ServingPlan,
    registry: Registry,
    hooks: Hooks | None = None,
    words: Sequence[str] = (),
    spawned: SpawnedEngine | None = None,
) -> int:
    """Serves until a signal comes; returns the exit status. ``hooks`` are the installed ones, made
    before the plan; None where there are none. ``words``: the command line that the settings come
    from, for API processes of their own. ``spawned``: the engine's process, if it is there already.

    Raises ``ConfigError`` for what cannot work as configured, ``EngineError`` where the engine
    fails or dies: the error is the last that is to be said.
    """
    options = options_from_settings(settings)
    start = process_start()
    if settings.api_server_count > 1:
        from jackfield.server.processes.keeper import keep

        return keep(settings, options, plan, registry, words, start, spawned)
    listener = bind(options)
    launched = time.monotonic()
    llm = AsyncLLM(plan, registry, restart_policy(settings), spawned)
    llm.launch()
    # The engine process is on its way: only now what takes its time to import.
    from jackfield.hooks import Hooks

    try:
        hooks = hooks or Hooks((), registry)
        with hooks.running(settings):
            return _serve(llm, options, listener, hooks, (start, launched))
    except JackfieldError:
        asyncio.run(llm.stop())
        raise
    finally:
        listener.close()
        if options.uds is not None:
            Path(options.uds).unlink(missing_ok=True)


def _serve(
    llm: AsyncLLM,
    options: ServerOptions,
    listener: socket.socket,
    hooks: Hooks,
    times: tuple[float, float],
) -> int:
    """Builds the application while the engine loads, and serves. ``times``: of the process'
    start and of the engine's launch."""
    from jackfield.server.assembly import event_loop, make_service

    start, launched = times
    imported = time.monotonic()

    def ready(engine: EngineReady) -> None:
        gc.freeze()
        for line in report(llm.plan, engine, plugins_line(plugins)):
            log.info("%s", line)
        now = time.monotonic()
        if options.explain_startup:
            own = [
                ("command line and plan", start, launched),
                ("server: imports", launched, imported),
                ("server: application", imported, built),
            ]
            for line in timeline([*own, *llm.phases, *engine.phases], start, now):
                log.info("%s", line)
        names = ", ".join(llm.plan.served_model_names)
        log.info("serving %s on %s, ready in %.1f s", names, url(options, listener), now - start)

    plugins = active_plugins(llm.plan, llm.registry)
    service = make_service(llm, options, listener, hooks, plugins, ready)
    built = time.monotonic()
    settle()
    with event_loop(options) as runner:
        return runner.run(service.run())
