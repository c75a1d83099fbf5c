"""The real child process, with workers that need no model."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from tests.core.engine.workers_for_tests import LOADING_SECONDS
from tests.faults import Fault, failing, full_pipe, stderr_to
from tests.waiting import PATIENCE_SECONDS, until, wait_until

from jackfield.config.plan import EnginePlan, WorkerPlan
from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    EngineReady,
    FinishReason,
    StepTokens,
)
from jackfield.contracts.sampling import TokenSampling
from jackfield.engine.client import EngineClient
from jackfield.engine.pulse import PulseWatch, WatchLimits
from jackfield.engine.spawning import SpawnedEngine, early_engine
from jackfield.errors import ConfigError, EngineError, JackfieldError
from jackfield.testing.simulated_worker import continuation


def make_plan(worker: str = "NotedWorker", **changes: object) -> EnginePlan:
    values: dict[str, object] = {
        "model": "simulated",
        "config": {"vocab_size": 97},
        "device": "none",
        "dtype": "float32",
        "max_model_len": 96,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 16,
        "block_size": 4,
        "worker": f"tests.core.engine.workers_for_tests:{worker}",
        **changes,
    }
    return EnginePlan(worker=WorkerPlan(**values))  # type: ignore[arg-type]


class Listener:
    """Collects tokens by key, and the reason of an end."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.finish: dict[int, int] = {}
        self.dead: asyncio.Future[JackfieldError] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()

    def on_step(self, step: StepTokens) -> None:
        for key, token, finish in zip(
            np.frombuffer(step.keys, "<i8").tolist(),
            np.frombuffer(step.token_ids, "<i4").tolist(),
            np.frombuffer(step.finish, np.int8).tolist(),
            strict=True,
        ):
            if token >= 0:
                self.tokens.setdefault(key, []).append(token)
            if finish:
                self.finish[key] = finish
        self.changed.set()

    async def finished(self, *keys: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not set(keys) <= self.finish.keys():
                self.changed.clear()
                await self.changed.wait()

    async def death(self) -> JackfieldError:
        return await asyncio.wait_for(self.dead, PATIENCE_SECONDS)


@asynccontextmanager
async def running(
    plan: EnginePlan, limits: WatchLimits | None = None, spawned: SpawnedEngine | None = None
) -> AsyncIterator[tuple[EngineClient, Listener, EngineReady]]:
    client, listener = EngineClient(plan, limits, spawned), Listener()
    client.launch()
    try:
        ready = await client.connect(listener.on_step, listener.dead.set_result)
        yield client, listener, ready
    finally:
        await client.stop()
        assert client.pid is not None and not _is_alive(client.pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def add(key: int, prompt: list[int], max_tokens: int) -> AddRequest:
    ids = np.array(prompt, dtype="<i4").tobytes()
    return AddRequest(key, ids, TokenSampling(), max_tokens, time.monotonic())


async def test_ready_tokens_abort_stop() -> None:
    async with running(make_plan()) as (client, listener, ready):
        assert (ready.num_blocks, ready.block_size, ready.logits_width) == (64, 4, 97)
        assert ready.max_model_len == 96
        assert ready.notes == ["a note"]
        names = [name for name, _, _ in ready.phases]
        assert names == [
            "interpreter",
            "imports",
            "wait for the plan",
            "scheduler and executor",
            "worker",
        ]
        edges = [moment for _, begin, end in ready.phases for moment in (begin, end)]
        assert edges == sorted(edges)
        for key in range(1, 20):
            client.send(add(key, [key] * key, 10))
        client.send(AbortRequests([5]))
        await listener.finished(*range(1, 20))
        for key in {*range(1, 20)} - {5}:
            assert listener.tokens[key] == continuation([key] * key, 10, 97)
            assert listener.finish[key] == FinishReason.LENGTH
    assert not listener.dead.done()


async def test_an_engine_whose_log_nobody_reads_serves_and_ends() -> None:
    client, listener = EngineClient(make_plan("ChattyWorker")), Listener()
    with full_pipe() as descriptor:
        with stderr_to(descriptor):
            client.launch()
        await client.connect(listener.on_step, listener.dead.set_result)
        client.send(add(1, [1], 20))
        await listener.finished(1)
        assert listener.tokens[1] == continuation([1], 20, 97)
        await client.stop(timeout=15.0)
    assert client.pid is not None and not _is_alive(client.pid)


async def test_stop_aborts_what_runs() -> None:
    async with running(make_plan("SlowWorker")) as (client, listener, _):
        client.send(add(1, [1], 90))
        await until(lambda: listener.tokens)
    assert listener.finish == {1: FinishReason.ABORT}


async def test_a_killed_engine_is_named_with_its_signal() -> None:
    async with running(make_plan("SlowWorker")) as (client, listener, _):
        client.send(add(1, [1], 90))
        await until(lambda: listener.tokens)
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        error = await listener.death()
        assert isinstance(error, EngineError)
        assert "SIGKILL" in str(error)
        client.send(add(2, [1], 90))


async def test_a_stopped_engine_is_found_and_killed() -> None:
    async with running(make_plan(), WatchLimits(heartbeat_seconds=1.0)) as (client, listener, _):
        assert client.pid is not None
        os.kill(client.pid, signal.SIGSTOP)
        error = await listener.death()
        assert str(error) == "the engine process gave no sign for 1 s"


async def test_a_step_that_hangs_is_found() -> None:
    limits = WatchLimits(step_seconds=1.0)
    async with running(make_plan("HangingWorker"), limits) as (client, listener, _):
        client.send(add(1, [1], 90))
        error = await listener.death()
        assert str(error) == "a step of the engine took more than 1 s"


async def test_the_pulse_tells_of_every_step_and_of_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, bool]] = []
    feed = PulseWatch.feed

    def note(watch: PulseWatch, data: bytes) -> None:
        feed(watch, data)
        told.append(watch._last)

    monkeypatch.setattr(PulseWatch, "feed", note)
    async with running(make_plan("SlowWorker")) as (client, listener, _):
        client.send(add(1, [1], 90))
        await until(lambda: any(turns and not is_idle for turns, is_idle in told))
        await listener.finished(1)
        await until(lambda: told[-1][0] >= 90 and told[-1][1])


async def test_a_failing_step_ends_the_engine_with_its_own_words() -> None:
    async with running(make_plan("BrokenStepWorker")) as (client, listener, _):
        client.send(add(1, [1], 5))
        error = await listener.death()
        assert str(error) == "the engine failed: ValueError: the device is lost"


@pytest.mark.parametrize(
    ("worker", "kind", "message"),
    [
        ("BadCheckpointWorker", ConfigError, "model.safetensors is cut off: tensor a.weight"),
        ("BrokenWorker", EngineError, "the engine failed: ValueError: no such device"),
        ("ExitingWorker", EngineError, "the engine failed: SystemExit: 7"),
        ("CrashingWorker", EngineError, "the engine process was killed by SIGSEGV"),
    ],
)
async def test_a_start_that_fails_says_why_in_one_line(
    worker: str, kind: type[JackfieldError], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client, listener = EngineClient(make_plan(worker)), Listener()
    with pytest.raises(kind) as caught:
        await client.connect(listener.on_step, listener.dead.set_result)
    assert str(caught.value) == message
    await client.stop()
    assert not listener.dead.done()
    assert "Traceback" not in capfd.readouterr().err


async def test_an_unknown_worker_is_a_config_error() -> None:
    client, listener = EngineClient(make_plan("NoSuchWorker")), Listener()
    with pytest.raises(ConfigError, match="NoSuchWorker"):
        await client.connect(listener.on_step, listener.dead.set_result)
    await client.stop()


async def test_stop_while_loading_does_not_wait_for_the_model() -> None:
    client, listener = EngineClient(make_plan("LoadingWorker")), Listener()
    connecting = asyncio.create_task(client.connect(listener.on_step, listener.dead.set_result))
    await asyncio.sleep(0.5)
    connecting.cancel()
    begin = time.monotonic()
    await client.stop()
    assert time.monotonic() - begin < LOADING_SECONDS / 2
    assert client.pid is not None and not _is_alive(client.pid)
    with pytest.raises(asyncio.CancelledError):
        await connecting


async def test_stop_before_connect_ends_the_child() -> None:
    client = EngineClient(make_plan("LoadingWorker"))
    client.launch()
    await client.stop()
    assert client.pid is not None and not _is_alive(client.pid)


async def test_an_engine_that_ends_before_it_connects_can_be_stopped_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    client, listener = EngineClient(make_plan()), Listener()
    with pytest.raises(EngineError, match="ended with status 1 before it could start"):
        await client.connect(listener.on_step, listener.dead.set_result)
    await client.stop()
    with open(os.devnull) as other:  # the descriptor that was the engine's
        await client.stop()
        os.fstat(other.fileno())


async def test_a_plan_that_cannot_be_sent_is_told_of_and_the_child_ends() -> None:
    client, listener = EngineClient(make_plan(config={"a": object()})), Listener()
    with pytest.raises(TypeError, match="object"):
        await client.connect(listener.on_step, listener.dead.set_result)
    await client.stop()
    assert client.pid is not None and not _is_alive(client.pid)


async def test_an_engine_may_be_spawned_before_there_is_a_plan() -> None:
    spawned = SpawnedEngine(early=("no_such_module", "colorsys"))
    await asyncio.sleep(0.1)
    async with running(make_plan("ModulesWorker"), spawned=spawned) as (client, _, ready):
        assert client.pid == spawned.process.pid
        # Somebody owns it now.
        spawned.discard()
        assert _is_alive(spawned.process.pid)
        assert "colorsys is imported" in ready.notes


async def test_an_engine_with_other_threads_than_the_plans_is_replaced() -> None:
    with early_engine() as spawned:
        async with running(make_plan(num_threads=1), spawned=spawned) as (client, _, _):
            assert client.pid != spawned.process.pid
            assert not _is_alive(spawned.process.pid)


@pytest.mark.parametrize("length", [76, 77, 90, 104])
def test_a_long_path_of_temporary_files_is_no_obstacle(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket's path has little room; the engine listens for others beside its parent's."""
    base = Path("/tmp") / f"jackfield-test-{tmp_path.name}".ljust(length - len("/tmp/"), "x")
    base.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    try:
        spawned = SpawnedEngine()
        with socket.socket(socket.AF_UNIX) as clients:
            clients.bind(f"{spawned.directory}/clients")
        spawned.discard()
        assert not any(base.iterdir())
    finally:
        base.rmdir()


def test_an_engine_that_gets_no_plan_leaves_nothing_behind() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with early_engine() as spawned:
        assert os.stat(spawned.directory).st_mode & 0o777 == 0o700
    spawned.discard()
    assert not _is_alive(spawned.process.pid) and not os.path.exists(spawned.directory)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("owner", "name"), [(os, "pipe"), (subprocess, "Popen")])
def test_a_machine_without_room_for_a_first_process_is_told_of_in_one_line(
    owner: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        failing(owner, name, Fault(at=1, forever=True, error=BlockingIOError)),
        pytest.raises(ConfigError, match="no process can be started: injected"),
        early_engine(),
    ):
        pass
    assert not list(tmp_path.iterdir())


async def test_a_small_cache_limits_the_context_and_says_so() -> None:
    async with running(make_plan(num_blocks_override=9)) as (_, _, ready):
        assert ready.max_model_len == 32
        assert any("context limited to 32 tokens" in note for note in ready.notes)


async def test_interrupts_are_the_parents_to_handle() -> None:
    async with running(make_plan()) as (client, listener, _):
        assert client.pid is not None
        os.kill(client.pid, signal.SIGINT)
        os.kill(client.pid, signal.SIGTERM)
        client.send(add(1, [1], 5))
        await listener.finished(1)


async def test_an_idle_engine_sleeps() -> None:
    async with running(make_plan()) as (client, listener, _):
        client.send(add(1, [1], 5))
        await listener.finished(1)
        idle: list[float] = []
        # Once is enough: what waits by turning takes all of every second.
        while len(idle) < 10 and min(idle, default=1.0) > 0.01:
            before = _cpu_seconds(client.pid)
            await asyncio.sleep(0.5)
            idle.append(_cpu_seconds(client.pid) - before)
        assert min(idle) <= 0.01


def _cpu_seconds(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_nothing_is_left_of_the_socket_and_library_prints_go_to_stderr(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with running(make_plan()):
        assert list(tmp_path.iterdir()) == []
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "a library that prints" in captured.err


async def test_no_file_descriptor_is_left_behind() -> None:
    async with running(make_plan()):
        pass
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with running(make_plan()):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
    assert before < resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_it_all_works_on_uvloop() -> None:
    async def scenario() -> None:
        async with running(make_plan("SlowWorker")) as (client, listener, _):
            client.send(add(1, [1], 5))
            await listener.finished(1)
            assert listener.tokens[1] == continuation([1], 5, 97)
            client.send(add(2, [1], 90))
            assert client.pid is not None
            os.kill(client.pid, signal.SIGKILL)
            error = await listener.death()
            assert "SIGKILL" in str(error)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


PARENT = """
import asyncio
from tests.core.engine.test_process import EngineClient, Listener, make_plan

async def main():
    client, listener = EngineClient(make_plan("SlowWorker")), Listener()
    await client.connect(listener.on_step, listener.dead.set_result)
    print(client.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_the_engine_ends_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _is_alive(pid)
        parent.kill()
    wait_until(lambda: not _is_alive(pid))
