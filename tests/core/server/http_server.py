"""The real server on a free port, over a scripted door."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from tests.core.server.fake_llm import FakeLLM
from tests.waiting import until

from jackfield.hooks import Hooks
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.lifecycle import QuietServer, uvicorn_config
from jackfield.server.options import ServerOptions


@asynccontextmanager
async def serving(llm: FakeLLM, response_store: Any = None, **options: Any) -> AsyncIterator[str]:
    """The server's URL while it runs."""
    server_options = ServerOptions(**options)
    app = build_app(Frontend(llm, server_options, response_store), Hooks())
    server = QuietServer(uvicorn_config(app, server_options))
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def client(llm: FakeLLM, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client of a server."""
    async with (
        serving(llm, **options) as url,
        httpx.AsyncClient(base_url=url, timeout=20) as http,
    ):
        yield http


@asynccontextmanager
async def in_process(
    llm: FakeLLM, response_store: Any = None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application without a socket between: quicker, for whole answers."""
    app = build_app(Frontend(llm, ServerOptions(**options), response_store), Hooks())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as http:
        yield http
