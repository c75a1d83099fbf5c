"""``jackfield serve``: the engine process first, then everything else while it loads."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jackfield.contracts.messages import EngineReady
from jackfield.errors import ConfigError
from jackfield.llm import AsyncLLM
from jackfield.server.listening import bind, url
from jackfield.server.options import ServerOptions, options_from_settings
from jackfield.server.startup_report import (
    Phase,
    chosen_plugins,
    plugins_line,
    process_start,
    report,
    timeline,
)

if TYPE_CHECKING:
    from jackfield.config.settings import Settings
    from jackfield.planning import ServingPlan
    from jackfield.registry import Registry

log = logging.getLogger(__name__)


def run(settings: Settings, plan: ServingPlan, registry: Registry) -> int:
    """Serves until a signal or the engine's end; returns the exit status.

    0: stopped by a signal. 2: what the user configured cannot work. 1: the engine died. The
    reason is the last line that is logged. ``ConfigError`` if the address cannot be had.
    """
    return serve(options_from_settings(settings), plan, registry)


def serve(options: ServerOptions, plan: ServingPlan, registry: Registry) -> int:
    """``run`` with the server's options worked out."""
    start = process_start()
    listener = bind(options)
    launched = time.monotonic()
    llm = AsyncLLM(plan, registry)
    llm.launch()
    # FastAPI and uvicorn take as long to import as the engine process takes to get going.
    import uvloop

    from jackfield.server.app import build_app
    from jackfield.server.door import Frontend
    from jackfield.server.lifecycle import Service

    imported = time.monotonic()
    phases: list[Phase] = [
        ("command line and plan", start, launched),
        ("server: imports", launched, imported),
    ]

    def ready(engine: EngineReady) -> None:
        now = time.monotonic()
        plugins = plugins_line(chosen_plugins(plan), registry)
        for line in report(plan, engine, plugins):
            log.info("%s", line)
        if options.explain_startup:
            for line in timeline([*phases, *llm.phases, *engine.phases], start, now):
                log.info("%s", line)
        names = ", ".join(plan.served_model_names)
        log.info("serving %s on %s, ready in %.1f s", names, url(options, listener), now - start)

    try:
        frontend = Frontend(llm, options)
        service = Service(llm, frontend, build_app(frontend), listener, ready)
    except ConfigError:
        asyncio.run(llm.stop())
        raise
    phases.append(("server: application", imported, time.monotonic()))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status, error = runner.run(service.run())
    finally:
        if options.uds is not None:
            Path(options.uds).unlink(missing_ok=True)
    if error is not None:
        log.error("%s", error)
    return status
