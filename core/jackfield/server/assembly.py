"""A door, an application and a socket, put together to a service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import uvloop

from jackfield.contracts.messages import EngineReady
from jackfield.hooks import Hooks
from jackfield.llm import AsyncLLM
from jackfield.registry.active import ActivePlugin
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.lifecycle import Service
from jackfield.server.options import ServerOptions
from jackfield.server.processes.siblings import Siblings
from jackfield.server.responses.stored import open_store


def make_service(
    llm: AsyncLLM,
    options: ServerOptions,
    listener: socket.socket,
    hooks: Hooks,
    plugins: Sequence[ActivePlugin],
    on_ready: Callable[[EngineReady], None],
    *,
    signals: asyncio.Queue[int] | None = None,
    siblings: Siblings | None = None,
    patience_seconds: float = 0.0,
) -> Service:
    """The service over ``llm``; ``plugins`` are those in use. ``signals``, ``siblings`` and
    ``patience_seconds`` are those of an API process among others."""
    store = open_store(options, llm.registry)
    frontend = Frontend(llm, options, store, siblings)
    return Service(
        llm,
        frontend,
        build_app(frontend, hooks, llm.registry, plugins),
        listener,
        on_ready=on_ready,
        on_statistics=hooks.step_statistics,
        signals=signals,
        patience_seconds=patience_seconds,
    )


@contextmanager
def event_loop(options: ServerOptions) -> Iterator[asyncio.Runner]:
    """The loop that a service runs in."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if options.tokenizer_threads:
            # What tokenizes long prompts; see ``asyncio.to_thread``.
            threads = ThreadPoolExecutor(options.tokenizer_threads, "tokenizer")
            runner.get_loop().set_default_executor(threads)
        yield runner
