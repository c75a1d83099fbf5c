"""The life of a batch: files, engine, answers, the end; and its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tqdm import tqdm

from jackfield.errors import NotFoundError
from jackfield.hooks import Hooks
from jackfield.llm import AsyncLLM
from jackfield.llm.supervisor import restart_policy
from jackfield.server.app import build_app
from jackfield.server.asgi import ASGIApp, Receive, Scope, Send, route_path, send_error
from jackfield.server.assembly import event_loop
from jackfield.server.batch.files import (
    count_lines,
    lines_of,
    open_input,
    open_output,
    write_line,
)
from jackfield.server.batch.requests import Batch, Tally
from jackfield.server.door import Frontend
from jackfield.server.lifecycle import QuietServer, tell_statistics, uvicorn_config
from jackfield.server.listening import bind, url
from jackfield.server.middleware import LIVENESS_PATHS
from jackfield.server.options import ServerOptions, options_from_settings
from jackfield.server.responses.stored import open_store
from jackfield.server.startup_report import active_plugins, plugins_line, report

if TYPE_CHECKING:
    from jackfield.config.settings import Settings
    from jackfield.planning import ServingPlan
    from jackfield.registry import Registry

log = logging.getLogger(__name__)

WINDOW_FACTOR = 4
MIN_WINDOW = 64
"""So many lines for each row of the engine, and at least so many, are read ahead."""
TERMINATED = 128 + signal.SIGTERM
_OBSERVED = LIVENESS_PATHS | {"/metrics", "/version"}


@dataclass(frozen=True, slots=True)
class BatchFiles:
    """Places are paths or http(s) addresses."""

    given: str
    wanted: str
    folder: str | None = None
    """Where answers are gathered that go to an address."""


class ObservationOnly:
    """The application without its requests: what a Prometheus may ask while a batch runs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes probes and metrics on."""
        if scope["type"] == "http" and route_path(scope) not in _OBSERVED:
            await send_error(scope, send, NotFoundError("A batch runs here: there is /metrics"))
            return
        await self._app(scope, receive, send)


def run_batch(
    settings: Settings,
    plan: ServingPlan,
    registry: Registry,
    files: BatchFiles,
    *,
    hooks: Hooks,
    enable_metrics: bool,
) -> int:
    """Answers the requests of a file. 0 once every line has its answer or its error in the output.

    Raises ``ConfigError`` for files and options that cannot work, ``EngineError`` where the engine
    fails for good, ``BatchError`` where a file or an address does.
    """
    # Lines wait in the file, not at the door: the engine is never too busy for the next one.
    # And nobody will ask for a response again.
    options = dataclasses.replace(
        options_from_settings(settings), max_waiting_requests=sys.maxsize, response_store="none"
    )
    llm = AsyncLLM(plan, registry, restart_policy(settings))
    try:
        with contextlib.ExitStack() as stack:
            listener = None
            if enable_metrics:
                listener = stack.enter_context(bind(options))
                if options.uds is not None:
                    stack.callback(Path(options.uds).unlink, missing_ok=True)
            source = stack.enter_context(open_input(files.given))
            target = stack.enter_context(open_output(files.wanted, files.folder))
            with hooks.running(settings), event_loop(options) as runner:
                tally = runner.run(_run(llm, options, hooks, listener, (source, target)))
    except asyncio.CancelledError:
        log.warning("stopped by a signal")
        return TERMINATED
    log.info("%s", tally)
    return 0


async def _run(
    llm: AsyncLLM,
    options: ServerOptions,
    hooks: Hooks,
    listener: socket.socket | None,
    files: tuple[BinaryIO, FileIO],
) -> Tally:
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    plugins = active_plugins(llm.plan, llm.registry)
    frontend = Frontend(llm, options, open_store(options, llm.registry))
    app = build_app(frontend, hooks, llm.registry, plugins)
    living: list[asyncio.Task[Any]] = []
    try:
        async with _observed(app, options, listener):
            ready = await llm.start()
            for line in report(llm.plan, ready, plugins_line(plugins)):
                log.info("%s", line)
            death = asyncio.create_task(llm.wait_dead())
            telling = tell_statistics(llm, hooks.step_statistics, options.log_stats)
            living += [death, asyncio.create_task(telling)]
            window = max(MIN_WINDOW, WINDOW_FACTOR * llm.plan.engine.worker.max_num_seqs)
            return await _answer_all(Batch(app, frontend, window), options, files, death)
    finally:
        for each in living:
            each.cancel()
        await llm.stop()


async def _answer_all(
    batch: Batch,
    options: ServerOptions,
    files: tuple[BinaryIO, FileIO],
    death: asyncio.Task[Any],
) -> Tally:
    source, target = files
    lines = lines_of(source, options.max_body_bytes)
    # None: a bar on terminals alone.
    with tqdm(total=count_lines(source), desc="batch", unit="req", disable=None) as bar:
        return await batch.run(lines, partial(write_line, target), bar.update, death)


@asynccontextmanager
async def _observed(
    app: ASGIApp, options: ServerOptions, listener: socket.socket | None
) -> AsyncIterator[None]:
    """While it lasts, metrics are served, where there is a listener."""
    if listener is None:
        yield
        return
    server = QuietServer(uvicorn_config(ObservationOnly(app), options))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    log.info("metrics on %s/metrics", url(options, listener))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
