"""The life of a serving process: start, serve, drain, end; and its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import uvicorn

from jackfield.contracts.messages import EngineReady, EngineStats
from jackfield.errors import ConfigError, JackfieldError
from jackfield.server.asgi import ASGIApp
from jackfield.server.door import Door, Frontend
from jackfield.server.http_protocol import deadline_protocol
from jackfield.server.options import ServerOptions
from jackfield.server.tls import refresh_certificates

log = logging.getLogger(__name__)

CLOSING_SECONDS = 5
"""How long finished answers may take to reach their clients once the engine has ended."""


LINE_SECONDS = 10


class LivingDoor(Door, Protocol):
    """The door with its life: what ``AsyncLLM`` is."""

    async def start(self) -> EngineReady: ...
    async def stop(self, drain_seconds: float = 0.0) -> None: ...
    async def wait_dead(self) -> JackfieldError: ...


class QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers: ``Service`` decides what a signal means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


class Service:
    """One engine, one HTTP server. ``run`` returns the exit status."""

    def __init__(
        self,
        llm: LivingDoor,
        frontend: Frontend,
        app: ASGIApp,
        listener: socket.socket,
        *,
        on_ready: Callable[[EngineReady], None],
        on_statistics: Callable[[EngineStats], None],
        signals: asyncio.Queue[int] | None = None,
        patience_seconds: float = 0.0,
    ) -> None:
        """``signals``: where they come from, if not from the system. ``patience_seconds``: how long
        connections may wait until the engine serves, before they are told that it does not."""
        self._llm = llm
        self._frontend = frontend
        self._listener = listener
        self._on_ready = on_ready
        self._on_statistics = on_statistics
        self._patience_seconds = patience_seconds
        self._is_ready = asyncio.Event()
        self._server = QuietServer(uvicorn_config(app, frontend.options))
        self._listens = signals is None
        self._signals: asyncio.Queue[int] = asyncio.Queue() if signals is None else signals

    async def run(self) -> int:
        """Serves from now on (503 until the model is loaded) to the end. Raises ``ConfigError`` or
        ``EngineError`` for an engine that does not start or dies."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT) if self._listens else ():
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        living = asyncio.create_task(self._live())
        if self._patience_seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_ready.wait(), self._patience_seconds)
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        refreshing = self._refresh_certificates()
        await asyncio.wait({serving, living}, return_when=asyncio.FIRST_COMPLETED)
        refreshing.cancel()
        if not living.done():
            living.cancel()
            await asyncio.wait({living})
        self._server.should_exit = True
        # Re-raises what ended the HTTP server, where that came first.
        await serving
        return living.result()

    def _refresh_certificates(self) -> asyncio.Task[None]:
        context, options = self._server.config.ssl, self._frontend.options
        if context is None or not options.enable_ssl_refresh:
            return asyncio.create_task(asyncio.sleep(0))
        return asyncio.create_task(refresh_certificates(context, options))

    async def _live(self) -> int:
        stopped = asyncio.create_task(self._signals.get())
        starting = asyncio.create_task(self._llm.start())
        await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return await self._give_up_start(starting)
        try:
            self._on_ready(starting.result())
            self._is_ready.set()
        except BaseException:
            stopped.cancel()
            # In the loop that the engine's connection belongs to.
            await self._llm.stop()
            raise
        dying = asyncio.create_task(self._llm.wait_dead())
        log_stats = self._frontend.options.log_stats
        telling = asyncio.create_task(tell_statistics(self._llm, self._on_statistics, log_stats))
        await asyncio.wait({stopped, dying}, return_when=asyncio.FIRST_COMPLETED)
        telling.cancel()
        if dying.done():
            stopped.cancel()
            await self._llm.stop()
            raise dying.result()
        dying.cancel()
        return await self._drain()

    async def _give_up_start(self, starting: asyncio.Task[EngineReady]) -> int:
        log.info("stopped while the model was loading")
        starting.cancel()
        await asyncio.wait({starting})
        return 0

    async def _drain(self) -> int:
        """Readiness is 503 from here on; running requests finish, unless a second signal comes."""
        frontend = self._frontend
        frontend.is_draining = True
        seconds = frontend.options.shutdown_timeout_seconds
        log.info("stopping: %d requests may run for %g s more", frontend.num_active, seconds)
        draining = asyncio.create_task(self._llm.stop(drain_seconds=seconds))
        again = asyncio.create_task(self._signals.get())
        await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            again.cancel()
            draining.result()
            return 0
        draining.cancel()
        self._server.force_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._llm.stop(), timeout=1.0)
        return 128 + again.result()


async def tell_statistics(
    llm: Door, on_statistics: Callable[[EngineStats], None], log_stats: bool
) -> None:
    """The engine's numbers to whoever listens, and a log line every ``LINE_SECONDS`` if these are
    wanted, unless nothing happened. Until it is cancelled."""
    told = reported = llm.stats
    for second in itertools.count(1):
        await asyncio.sleep(1.0)
        stats = llm.stats
        if stats is not told and stats is not None:
            told = stats
            on_statistics(stats)
        if second % LINE_SECONDS or not log_stats:
            continue
        if stats and reported and stats.num_steps != reported.num_steps:
            log.info("%s", throughput_line(reported, stats, LINE_SECONDS))
        reported = stats


def throughput_line(last: EngineStats, now: EngineStats, seconds: float) -> str:
    """What the engine did between two reports; one that was replaced meanwhile began anew."""
    if now.num_steps < last.num_steps:
        last = EngineStats(0, 0, 0, 0, 0, 0, 0, 0, 0)
    prompt = (now.num_prompt_tokens - last.num_prompt_tokens) / seconds
    output = (now.num_generation_tokens - last.num_generation_tokens) / seconds
    queries = now.prefix_cache_queries - last.prefix_cache_queries
    hits = now.prefix_cache_hits - last.prefix_cache_hits
    return (
        f"prompt {prompt:.1f} tok/s, output {output:.1f} tok/s, running {now.num_running}, "
        f"waiting {now.num_waiting}, KV blocks in use {now.num_blocks_used}, "
        f"prefix cache hits {hits / max(queries, 1):.0%}"
    )


def uvicorn_config(app: ASGIApp, options: ServerOptions) -> uvicorn.Config:
    """uvicorn with our protocol class and bounds; our own lines tell the story of the start."""
    application: Any = app
    ssl: dict[str, Any] = {}
    if options.ssl_certfile is not None:
        ssl = {
            "ssl_keyfile": options.ssl_keyfile,
            "ssl_certfile": options.ssl_certfile,
            "ssl_ca_certs": options.ssl_ca_certs,
            "ssl_cert_reqs": options.ssl_cert_reqs,
        }
    config = uvicorn.Config(
        application,
        http=deadline_protocol(
            options.header_timeout_seconds,
            options.body_timeout_seconds,
            options.read_timeout_seconds,
        ),
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        log_level=_uvicorn_level(options.uvicorn_log_level),
        access_log=options.access_log,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=options.max_header_bytes,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        **ssl,
    )
    try:
        config.load()
    except OSError as error:
        raise ConfigError(f"--ssl-certfile {options.ssl_certfile}: {error}") from error
    if options.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    return config


def _uvicorn_level(level: str) -> str:
    """uvicorn's own story of the start and the stop, at ``info``, is told by us already; its
    warnings are a line for each piece of broken HTTP, which anybody can send."""
    return "error" if level == "info" else level
