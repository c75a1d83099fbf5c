"""Several API processes, one engine: what they tell together, and what an end of one costs."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.faults import Fault, failing
from tests.waiting import PATIENCE_SECONDS, until, wait_until

from jackfield.cli.bench.chaos import Server
from jackfield.config.settings import make_settings
from jackfield.errors import ConfigError, EngineError, EngineKilledError
from jackfield.server.listening import bind, bind_several
from jackfield.server.options import ServerOptions
from jackfield.server.processes.control import (
    ApiReady,
    Control,
    Failure,
    FromApi,
    Snapshot,
    Snapshots,
    StopApi,
    ToApi,
)
from jackfield.server.processes.crew import Crew
from jackfield.server.processes.keeper import check_options
from jackfield.server.processes.merged_metrics import merged
from jackfield.server.processes.siblings import Siblings

EXPOSED = b"""\
# HELP jackfield:done_total Done.
# TYPE jackfield:done_total counter
jackfield:done_total{reason="stop"} %d
# HELP jackfield:seconds Time.
# TYPE jackfield:seconds histogram
jackfield:seconds_bucket{le="1.0"} %d
jackfield:seconds_bucket{le="+Inf"} 9
jackfield:seconds_count 9
jackfield:seconds_sum 4.5
# HELP jackfield:generation_tokens_total Of the engine.
# TYPE jackfield:generation_tokens_total counter
jackfield:generation_tokens_total %d
# HELP jackfield:num_requests_running Of the engine.
# TYPE jackfield:num_requests_running gauge
jackfield:num_requests_running %d
# HELP process_resident_memory_bytes Memory.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes %d
"""


def samples(text: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_own_counts_are_added_up_and_those_of_the_engine_are_not() -> None:
    live = [EXPOSED % (3, 5, 100, 2, 1000), EXPOSED % (4, 6, 90, 3, 1000)]
    ended = [EXPOSED % (10, 7, 80, 9, 1000)]
    assert samples(merged(live, ended, {"jackfield:generation_tokens"})) == {
        "jackfield:done_totalstop": 17,
        "jackfield:seconds_bucket1.0": 18,
        "jackfield:seconds_bucket+Inf": 27,
        "jackfield:seconds_count": 27,
        "jackfield:seconds_sum": 13.5,
        "jackfield:generation_tokens_total": 100,
        "jackfield:num_requests_running": 3,
        "process_resident_memory_bytes": 2000,
    }


def test_putting_ended_processes_together_first_changes_nothing() -> None:
    texts = [EXPOSED % (count, count, count, count, count) for count in (1, 2, 3)]
    together = [merged([], texts[1:], ())]
    engine = {"jackfield:generation_tokens"}
    assert samples(merged(texts[:1], together, engine)) == samples(
        merged(texts[:1], texts[1:], engine)
    )


def test_every_process_listens_at_one_port_that_is_taken_then() -> None:
    listeners = bind_several(ServerOptions(port=0), 3)
    try:
        ports = {listener.getsockname()[1] for listener in listeners}
        assert len(ports) == 1
        with pytest.raises(ConfigError, match="in use"):
            bind(ServerOptions(port=ports.pop()))
    finally:
        for listener in listeners:
            listener.close()


def test_a_path_is_shared(tmp_path: Path) -> None:
    listeners = bind_several(ServerOptions(uds=str(tmp_path / "socket")), 2)
    for listener in listeners:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
            accepted, _ = listener.accept()
            accepted.close()
    for listener in listeners:
        listener.close()


def test_a_store_of_one_process_is_refused_where_it_was_asked_for() -> None:
    with pytest.raises(ConfigError, match="--response-store memory is of one process"):
        check_options(make_settings({"model": "m", "response_store": "memory"}))
    check_options(make_settings({"model": "m", "response_store": "none"}))


@pytest.mark.parametrize("error", [ConfigError("a"), EngineKilledError("b"), EngineError("c")])
def test_errors_travel_as_they_are(error: ConfigError | EngineError) -> None:
    again = Failure.of(error).error()
    assert type(again) is type(error) and str(again) == str(error)


async def test_messages_wait_until_somebody_listens() -> None:
    ours, theirs = socket.socketpair()
    keeper: Control[FromApi] = Control(ours, FromApi)
    member: Control[ToApi] = Control(theirs, ToApi)
    keeper.send(StopApi(1))
    keeper.send(StopApi(2))
    assert member.receive() == StopApi(1)
    heard: list[ToApi] = []
    closed = asyncio.Event()
    await member.attach(heard.append, closed.set)
    answers: list[FromApi] = []
    await keeper.attach(answers.append, lambda: None)
    member.send(ApiReady())
    keeper.send(StopApi(3))
    await until(lambda: len(heard) == 2 and answers)
    assert heard == [StopApi(2), StopApi(3)] and answers == [ApiReady()]
    keeper.close()
    await asyncio.wait_for(closed.wait(), PATIENCE_SECONDS)


async def test_a_process_whose_keeper_is_silent_tells_of_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jackfield.server.processes.siblings.ANSWER_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        siblings = Siblings(Control(theirs, ToApi))
        siblings.tell(lambda: EXPOSED % (3, 5, 100, 2, 1000), lambda: 4, ())
        assert await siblings.num_active() == 4
        assert samples(await siblings.metrics())["jackfield:done_totalstop"] == 3
        asking = asyncio.create_task(siblings.num_active())
        await asyncio.sleep(0)
        siblings.take(Snapshots(3, [Snapshot(1, b"", 5), Snapshot(1, b"", 6)], []))
        assert await asking == 15


@pytest.mark.parametrize(("owner", "name"), [(socket, "socketpair"), (subprocess, "Popen")])
async def test_a_machine_that_has_no_room_for_a_process_is_asked_again(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jackfield.server.processes.crew.NO_ROOM_SECONDS", 0.02)
    spawn = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **more: spawn(["sleep", "60"], **more))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        crew = Crew([], [listener], 10.0)
        await crew.start()
        num_files = len(os.listdir("/proc/self/fd"))
        fault = Fault(at=1, forever=True, error=BlockingIOError)
        with failing(owner, name, fault):
            crew._processes[0].kill()
            await until(lambda: fault.happened)
            await asyncio.sleep(0.1)
            assert not crew._processes
        await until(lambda: crew._processes)
        assert len(os.listdir("/proc/self/fd")) <= num_files
        assert await crew.end(0.0) == 1


async def test_a_machine_without_room_for_the_first_processes_is_told_of() -> None:
    fault = Fault(at=1, forever=True, error=BlockingIOError)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        crew = Crew([], [listener], 10.0)
        with failing(subprocess, "Popen", fault), pytest.raises(ConfigError, match="no process"):
            await crew.start()


# --- the real thing ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    words = ["--api-server-count", "2", "--num-threads", "1", "--cpu-kv-cache-gib", "0.25"]
    words += ["--response-store", "none", "--engine-heartbeat-timeout", "5"]
    running = Server([*words, "--shutdown-timeout", "20"])
    try:
        running.wait_ready(90)
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def ask(server: Server, **changes: Any) -> Any:
    body = {"prompt": "Hello", "max_tokens": 3, "ignore_eos": True, **changes}
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(
        server.url + "/v1/completions", json.dumps(body).encode(), head
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return answer.read()


def stream(server: Server, ends: list[str]) -> None:
    try:
        data = ask(server, stream=True, max_tokens=150)
        ends.append("whole" if data.endswith(b"data: [DONE]\n\n") else "cut")
    except (OSError, http.client.HTTPException):
        ends.append("broken")


def streams(server: Server, count: int) -> tuple[list[threading.Thread], list[str]]:
    """So many streams at once, and how they have ended."""
    ends: list[str] = []
    threads = [threading.Thread(target=stream, args=(server, ends)) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, ends


def wait_until_running(server: Server, count: int) -> None:
    wait_until(lambda: server.metric("num_requests_running") >= count)


def test_metrics_are_of_all_processes(server: Server) -> None:
    before = server.metric("e2e_request_latency_seconds_count")
    for _ in range(12):
        assert json.loads(ask(server))["usage"]["completion_tokens"] == 3
    for _ in range(4):
        assert server.metric("e2e_request_latency_seconds_count") == before + 12
        assert server.metric("generation_tokens_total") >= 36
        time.sleep(0.05)


def test_a_process_that_is_killed_is_replaced_and_its_requests_end(server: Server) -> None:
    threads, ends = streams(server, 8)
    wait_until_running(server, 8)
    before = server.api_processes()
    os.kill(before[0], signal.SIGKILL)
    for _ in range(10):
        ask(server)
    for thread in threads:
        thread.join()
    # Connections of the one that died break; those of the other go on to their end.
    assert len(ends) == 8 and set(ends) <= {"whole", "broken"}
    wait_until(lambda: server.metric("num_requests_running") == 0)
    after = server.api_processes()
    assert len(after) == 2 and before[1] in after and before[0] not in after
    assert len(server.engines()) == 1


def test_a_process_that_is_frozen_is_replaced_and_its_next_clients_wait(server: Server) -> None:
    before = server.api_processes()
    os.kill(before[0], signal.SIGSTOP)
    threads, ends = streams(server, 12)
    for thread in threads:
        thread.join()
    # It had accepted none of them: some were answered by the other one, some by its successor.
    assert ends == ["whole"] * 12
    after = server.api_processes()
    assert len(after) == 2 and before[1] in after and before[0] not in after


def test_a_killed_engine_is_replaced_for_all(server: Server) -> None:
    os.kill(server.engines()[0], signal.SIGKILL)
    wait_until(lambda: server.metric("engine_restarts_total") == 1)
    server.wait_ready(PATIENCE_SECONDS)
    for _ in range(6):
        assert json.loads(ask(server))["usage"]["completion_tokens"] == 3


def test_sigterm_drains_all_and_leaves_nobody(server: Server) -> None:
    threads, ends = streams(server, 6)
    wait_until_running(server, 6)
    children = [*server.api_processes(), *server.engines()]
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE_SECONDS) == 0
    for thread in threads:
        thread.join()
    assert ends == ["whole"] * 6
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("numbers", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGKILL]])
def test_a_second_signal_and_the_keepers_death_end_all_at_once(numbers: list[int]) -> None:
    words = ["--api-server-count", "2", "--num-threads", "1", "--cpu-kv-cache-gib", "0.25"]
    server = Server([*words, "--response-store", "none", "--shutdown-timeout", "60"])
    try:
        server.wait_ready(90)
        threads, ends = streams(server, 6)
        wait_until_running(server, 6)
        children = [*server.api_processes(), *server.engines()]
        for number in numbers:
            server.process.send_signal(number)
            time.sleep(0.1)
        status = server.process.wait(PATIENCE_SECONDS)
        assert status == (128 + signal.SIGTERM if len(numbers) == 2 else -signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        assert len(ends) == 6
    finally:
        server.process.kill()
        server.process.wait()


def test_a_process_that_cannot_start_ends_the_server_with_one_line(tmp_path: Path) -> None:
    certificate = tmp_path / "no.pem"
    certificate.write_text("none")
    words = ["--api-server-count", "2", "--response-store", "none", "--port", "0"]
    words += ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(certificate)]
    command = [sys.executable, "-m", "jackfield", "serve", *words, "--num-threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 2
    errors = re.findall("^jackfield: error: .*", done.stderr, re.M)
    assert len(errors) == 1 and str(certificate) in errors[0]
    assert "Traceback" not in done.stderr
