"""Start, drain, end: what signals and the engine's death do to a serving process."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.waiting import PATIENCE_SECONDS, until

from jackfield.config.settings import make_settings
from jackfield.contracts.generation import ChoiceDelta, Finish, GenerationRequest
from jackfield.contracts.messages import EngineReady, EngineStats
from jackfield.errors import CheckpointError, ConfigError, EngineError, JackfieldError
from jackfield.hooks import Hooks
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.lifecycle import QuietServer, Service, throughput_line, uvicorn_config
from jackfield.server.listening import bind
from jackfield.server.options import ServerOptions, options_from_settings
from jackfield.server.startup_report import process_start, timeline


class LivingLLM(FakeLLM):
    """A fake door with a life: loads for as long as ``loading`` says, dies when told."""

    def __init__(self) -> None:
        super().__init__(self.held)
        self.may_finish = asyncio.Event()
        self.loaded, self.ready = self.ready, None
        self.loading = asyncio.Event()
        self.refusal: JackfieldError | None = None
        self.died = asyncio.Event()
        self.stopped = 0

    async def start(self) -> EngineReady:
        await self.loading.wait()
        if self.refusal is not None:
            raise self.refusal
        assert self.loaded is not None
        self.ready = self.loaded
        return self.ready

    async def stop(self, drain_seconds: float = 0.0) -> None:
        self.stopped += 1
        async with asyncio.timeout(drain_seconds + 0.001):
            while self.active and drain_seconds:
                await asyncio.sleep(0.01)

    async def wait_dead(self) -> JackfieldError:
        await self.died.wait()
        self.death = EngineError("the engine process was killed")
        return self.death

    async def held(self, request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        """A letter, and 19 more once it may finish."""
        for step in range(20):
            finish = Finish("stop") if step == 19 else None
            yield [ChoiceDelta(index=0, text="a", token_ids=(97,), finish=finish)]
            await self.may_finish.wait()


class Running:
    """A service in a task, and a client of it."""

    def __init__(self, llm: LivingLLM) -> None:
        options = ServerOptions(port=0, shutdown_timeout_seconds=1000)
        listener = bind(options)
        frontend = Frontend(llm, options)
        self.readied: list[EngineReady] = []
        self.statistics: list[EngineStats] = []
        service = Service(
            llm,
            frontend,
            build_app(frontend, Hooks()),
            listener,
            on_ready=self.readied.append,
            on_statistics=self.statistics.append,
        )
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.task = asyncio.create_task(service.run())

    async def health(self) -> int:
        return await self.status("/health")

    async def status(self, path: str) -> int:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{self.url}{path}")).status_code


def interrupt(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


async def test_the_socket_is_served_before_the_model_is_loaded() -> None:
    llm = LivingLLM()
    running = Running(llm)
    assert await running.health() == 503
    # Programs wait for this one too: other servers are not there before the model is.
    assert await running.status("/v1/models") == 503
    llm.loading.set()
    await until(lambda: running.readied)
    assert await running.health() == 200
    assert await running.status("/v1/models") == 200
    interrupt()
    assert await running.task == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_running_requests_finish(number: int) -> None:
    llm = LivingLLM()
    llm.loading.set()
    running = Running(llm)
    async with httpx.AsyncClient(base_url=running.url) as http:
        body = {"prompt": "a", "stream": True}
        answer = asyncio.create_task(http.post("/v1/completions", json=body))
        await until(lambda: llm.active)
        interrupt(number)
        await until(lambda: llm.stopped)
        assert await running.health() == 503
        refused = await http.post("/v1/completions", json={"prompt": "a"})
        assert refused.status_code == 503
        assert not answer.done() and not running.task.done()
        llm.may_finish.set()
        assert (await answer).text.count('"text":"a"') == 20
    assert await running.task == 0
    assert llm.stopped == 1


async def test_a_second_signal_ends_at_once() -> None:
    llm = LivingLLM()
    llm.loading.set()
    running = Running(llm)
    async with httpx.AsyncClient(base_url=running.url) as http:
        answer = asyncio.create_task(http.post("/v1/completions", json={"prompt": "a"}))
        await until(lambda: llm.active)
        interrupt()
        await until(lambda: llm.stopped)
        interrupt()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await running.task == 128 + signal.SIGTERM
        answer.cancel()
        await asyncio.wait({answer})
    await until(lambda: not llm.active)


async def test_a_signal_while_loading_ends_the_start() -> None:
    running = Running(LivingLLM())
    assert await running.health() == 503
    interrupt()
    assert await running.task == 0


@pytest.mark.parametrize("error", [CheckpointError("no such shard"), EngineError("killed")])
async def test_a_start_that_fails_says_why(error: JackfieldError) -> None:
    llm = LivingLLM()
    llm.refusal = error
    llm.loading.set()
    with pytest.raises(type(error), match=str(error)):
        await Running(llm).task


async def test_the_engines_death_ends_the_service_with_its_error() -> None:
    llm = LivingLLM()
    llm.loading.set()
    running = Running(llm)
    await until(lambda: running.readied)
    llm.died.set()
    with pytest.raises(EngineError, match="the engine process was killed"):
        await running.task


def test_a_port_in_use_is_a_config_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            bind(ServerOptions(port=port))


def test_an_abandoned_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    options = ServerOptions(uds=str(tmp_path / "socket"))
    bind(options).close()
    with bind(options), pytest.raises(ConfigError, match="--uds"):
        bind(options)


async def test_a_client_that_sends_no_request_is_cut_off() -> None:
    options = ServerOptions(port=0, header_timeout_seconds=0.1, body_timeout_seconds=0.2)
    listener = bind(options)
    app = build_app(Frontend(FakeLLM(), options), Hooks())
    server = QuietServer(uvicorn_config(app, options))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    port = listener.getsockname()[1]
    head = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\n"
    for part in (b"", head, head + b"content-length: 10\r\n\r\n{"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(part)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    server.should_exit = True
    await task


def test_every_server_option_is_set_by_the_settings() -> None:
    values = {"model": "m", "port": 1234, "api_key": ("k",), "disable_fastapi_docs": True}
    options = options_from_settings(make_settings(values))
    assert (options.port, options.api_keys, options.enable_docs) == (1234, ("k",), False)
    assert not options.access_log
    asked = make_settings({"model": "m", "disable_uvicorn_access_log": False})
    assert options_from_settings(asked).access_log
    # What the settings say nothing else about is what the server does by itself.
    defaults = dataclasses.asdict(options_from_settings(make_settings({"model": "m"})))
    assert defaults == dataclasses.asdict(ServerOptions()) | {"host": "0.0.0.0"}


def test_the_throughput_line_counts_from_report_to_report() -> None:
    before = EngineStats(0, 0, 0, 0, 0, 0, 0, 0, 0)
    after = EngineStats(3, 1, 7, 0, 100, 25, 50, 20, 9)
    line = throughput_line(before, after, 10.0)
    assert "prompt 5.0 tok/s, output 2.0 tok/s, running 3, waiting 1" in line
    assert line.endswith("prefix cache hits 25%")
    anew = throughput_line(EngineStats(9, 9, 9, 9, 999, 99, 500, 200, 90), after, 10.0)
    assert anew == line


def test_the_timeline_orders_phases_by_their_start() -> None:
    lines = list(timeline([("b", 2.0, 3.0), ("a", 0.0, 2.0)], 0.0, 4.0))
    assert [line.split()[0] for line in lines] == ["phase", "a", "b", "ready"]
    assert lines[2].split()[1:4] == ["2.00", "3.00", "1.00"]


def test_the_process_began_before_now() -> None:
    assert 0 < time.monotonic() - process_start() < 3600
