"""Batches: what each line of the input becomes, in which order, and how much is kept in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from tests.core.server.fake_llm import EMBED, FakeLLM, FakePlan, letter
from tests.core.server.sdk_models import check

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.contracts.messages import EngineReady
from jackfield.errors import BatchError, ConfigError, EngineError, JackfieldError
from jackfield.hooks import Hooks
from jackfield.server.app import build_app
from jackfield.server.batch import files
from jackfield.server.batch.requests import Batch, Tally
from jackfield.server.batch.run import ObservationOnly
from jackfield.server.door import Frontend
from jackfield.server.options import ServerOptions

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


def line(custom_id: object, body: object = HELLO, url: object = CHAT, **fields: object) -> bytes:
    entry = {"custom_id": custom_id, "method": "POST", "url": url, "body": body, **fields}
    return json.dumps(entry).encode()


async def run(
    llm: FakeLLM, lines: Any, window: int = 8, **options: Any
) -> tuple[list[dict[str, Any]], Tally]:
    frontend = Frontend(llm, ServerOptions(**options))
    written: list[dict[str, Any]] = []
    death = asyncio.create_task(forever())
    batch = Batch(build_app(frontend, Hooks()), frontend, window)
    try:
        tally = await batch.run(
            lines, lambda data: written.append(json.loads(data)), lambda: None, death
        )
    finally:
        death.cancel()
    return written, tally


async def forever() -> JackfieldError:
    await asyncio.Event().wait()
    raise AssertionError


def taking(steps: Any) -> FakeLLM:
    """A model whose n-th request takes ``steps(n)`` turns of the loop."""
    count = iter(range(10_000))

    async def script(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        for _ in range(steps(next(count))):
            await asyncio.sleep(0)
        yield [letter(request, 0, 0, 1)]

    return FakeLLM(script)


async def test_an_answer_is_what_http_would_have_answered() -> None:
    (entry,), tally = await run(FakeLLM(), [line("one")], api_keys=("secret",))
    assert entry["custom_id"] == "one" and entry["error"] is None
    assert entry["id"].startswith("batch_req_")
    assert entry["response"]["status_code"] == 200 and entry["response"]["request_id"]
    check(ChatCompletion, entry["response"]["body"], known_extras=("stop_reason",))
    assert entry["response"]["body"]["choices"][0]["message"]["content"] == "ab"
    assert (tally.num_answered, tally.num_failed) == (1, 0)


async def test_each_kind_of_model_has_its_paths() -> None:
    llm = FakeLLM(plan=FakePlan(pooling=EMBED))
    lines = [
        line("vector", {"input": "hi"}, "/v1/embeddings"),
        line("pair", {"text_1": "a", "text_2": "b"}, "/v1/score"),
        line("sorted", {"query": "a", "documents": ["b"]}, "/v1/rerank"),
        line("talk"),
    ]
    written, _ = await run(llm, lines)
    assert [entry["response"]["status_code"] for entry in written] == [200, 200, 200, 404]
    check(CreateEmbeddingResponse, written[0]["response"]["body"], known_extras=("id", "created"))
    assert written[3]["error"]["code"] == "unsupported_endpoint"


async def test_answers_come_in_the_order_of_the_lines() -> None:
    llm = taking(lambda number: 40 - 5 * (number % 7))
    written, _ = await run(llm, [line(str(number)) for number in range(50)])
    assert [entry["custom_id"] for entry in written] == list(map(str, range(50)))


async def test_no_more_than_the_window_is_read_ahead() -> None:
    read, written = 0, 0

    def lines() -> Iterator[bytes]:
        nonlocal read
        for number in range(40):
            read += 1
            assert read - written <= 5
            yield line(str(number))

    def note(_: bytes) -> None:
        nonlocal written
        written += 1

    llm = taking(lambda number: 30 if number == 0 else 1)
    frontend = Frontend(llm, ServerOptions())
    death = asyncio.create_task(forever())
    await Batch(build_app(frontend, Hooks()), frontend, 5).run(lines(), note, lambda: None, death)
    death.cancel()
    assert written == 40


@pytest.mark.parametrize(
    ("bad", "code", "custom_id"),
    [
        (b"nonsense", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (b'{"custom_id": "x", "a": NaN}', "invalid_json_line", None),
        (b'{"custom_id": "x"}', "missing_required_parameter", "x"),
        (line(7), "invalid_custom_id", None),
        (line("x", method="GET"), "invalid_method", "x"),
        (line("x", url="/sleep"), "invalid_url", "x"),
        (line("x", url=["/v1"]), "invalid_url", "x"),
        (line("x", body="hi"), "invalid_body", "x"),
        (line("x", body={**HELLO, "stream": True}), "invalid_body", "x"),
        (line("x" * 3000), "line_too_long", None),
    ],
)
async def test_a_line_that_is_no_request_says_why(bad: bytes, code: str, custom_id: str) -> None:
    written, tally = await run(FakeLLM(), [line("a"), bad, line("b")], max_body_bytes=2000)
    assert [entry["error"] and entry["error"]["code"] for entry in written] == [None, code, None]
    assert written[1]["response"] is None and written[1]["custom_id"] == custom_id
    assert (tally.num_answered, tally.num_failed) == (2, 1)


async def test_a_request_that_is_refused_has_the_answer_of_http_and_an_error() -> None:
    bad = line("x", body={**HELLO, "max_token": 3})
    (entry,), _ = await run(FakeLLM(), [bad])
    response = entry["response"]
    assert response["status_code"] == 400
    assert response["body"]["error"]["param"] == "max_token"
    assert entry["error"]["code"] == "unknown_parameter"
    assert entry["error"]["message"] == response["body"]["error"]["message"]


async def test_lines_wait_for_an_engine_that_is_being_replaced() -> None:
    llm = FakeLLM()
    llm.ready = None
    running = asyncio.create_task(run(llm, [line("a")]))
    await asyncio.sleep(0.05)
    assert not running.done() and not llm.requests
    llm.ready = EngineReady(100, 16, 1000, 257, [])
    written, _ = await running
    assert written[0]["response"]["status_code"] == 200


async def test_an_engine_that_is_gone_for_good_ends_the_batch() -> None:
    async def stuck(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        await asyncio.Event().wait()
        yield []

    async def dies() -> JackfieldError:
        await asyncio.sleep(0.02)
        return EngineError("it is gone")

    llm = FakeLLM(stuck)
    frontend = Frontend(llm, ServerOptions())
    batch = Batch(build_app(frontend, Hooks()), frontend, 8)
    with pytest.raises(EngineError, match="it is gone"):
        await batch.run([line("a")], print, lambda: None, asyncio.create_task(dies()))
    assert llm.active == 0


async def test_metrics_can_be_read_while_a_batch_runs_and_nothing_else() -> None:
    app: Any = ObservationOnly(build_app(Frontend(FakeLLM(), ServerOptions()), Hooks()))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as client:
        assert "jackfield:num_requests_running" in (await client.get("/metrics")).text
        assert (await client.get("/health")).status_code == 200
        refused = await client.post(CHAT, json=HELLO)
    assert refused.status_code == 404 and "/metrics" in refused.json()["error"]["message"]


def test_lines_are_read_to_their_bound_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"one\r\n\n" + b"x" * 100 + b"\n  \nlast")
    with files.open_input(str(path)) as file:
        assert files.count_lines(file) == 5
        assert list(files.lines_of(file, 10)) == [b"one", b"x" * 11, b"last"]


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    here = tmp_path / "in.jsonl"
    here.write_text("")
    with pytest.raises(ConfigError, match="same file"):
        files.check_places(str(here), str(tmp_path / "." / "in.jsonl"))
    files.check_places(str(here), str(tmp_path / "out.jsonl"))
    with pytest.raises(ConfigError, match="cannot be read"), files.open_input(str(tmp_path / "no")):
        pass
    with (
        pytest.raises(ConfigError, match="cannot be written"),
        files.open_output(str(tmp_path / "no" / "out"), None),
    ):
        pass


def test_an_output_that_is_full_is_an_error() -> None:
    with (
        pytest.raises(BatchError, match="cannot be written: No space left"),
        files.open_output("/dev/full", None) as file,
    ):
        files.write_line(file, b"answer\n")


class Files(BaseHTTPRequestHandler):
    """Fails ``failures`` times, then keeps what is put and gives it back."""

    kept = b""
    failures: list[int]

    def do_GET(self) -> None:
        self._answer(self.kept)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.failures:
            type(self).kept = body
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        status = self.failures.pop() if self.failures else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def file_server(*failures: int) -> Iterator[tuple[str, type[Files]]]:
    class Handler(Files):
        pass

    Handler.failures = list(failures)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/file?key=secret", Handler
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.mark.usefixtures("no_pause")
def test_addresses_are_fetched_and_sent_to_again_if_need_be(tmp_path: Path) -> None:
    with file_server(503, 500, 429) as (address, kept):
        with files.open_output(address, str(tmp_path)) as file:
            file.write(b"answers\n")
            assert len(list(tmp_path.iterdir())) == 1
        assert kept.kept == b"answers\n"
        kept.failures = [502]
        with files.open_input(address) as file:
            assert file.read() == b"answers\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_pause")
def test_answers_that_cannot_be_sent_stay_where_the_error_says(tmp_path: Path) -> None:
    with (
        file_server(403) as (address, _),
        pytest.raises(BatchError, match="answered 403") as refused,
        files.open_output(address, str(tmp_path)) as file,
    ):
        file.write(b"answers\n")
    (left,) = tmp_path.iterdir()
    assert str(left) in str(refused.value) and "secret" not in str(refused.value)
    assert left.read_bytes() == b"answers\n"


@pytest.mark.usefixtures("no_pause")
def test_an_input_that_cannot_be_fetched_is_an_error() -> None:
    with (
        file_server(*[500] * files.ATTEMPTS) as (address, _),
        pytest.raises(BatchError, match="answered 500"),
        files.open_input(address),
    ):
        pass
