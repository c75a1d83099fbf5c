"""``jackfield bench``: what it counts is what the server did."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.checkpoints import make
from tests.core.server.fake_llm import FakeLLM, letters
from tests.core.server.http_server import serving
from tests.waiting import until

from jackfield.cli.bench import latency, main, serve, throughput
from jackfield.cli.bench.http_client import Address, Connection
from jackfield.cli.bench.statistics import percentile, spread
from jackfield.cli.bench.traffic import Load, Outcome, drive
from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.errors import ApiError, ConfigError

AT_ONCE = Load(max_concurrency=3, request_rate=float("inf"), burstiness=1.0, seed=0)


def body(**fields: object) -> bytes:
    return json.dumps(
        {
            "model": "fake",
            "prompt": "abc",
            "max_tokens": 4,
            "stream": True,
            "stream_options": {"include_usage": True},
            **fields,
        }
    ).encode()


async def test_every_request_is_sent_once_and_its_tokens_are_counted() -> None:
    done: list[int] = []
    async with serving(FakeLLM()) as url:
        bodies = [body() for _ in range(7)]
        outcomes = await drive(
            Address.parse(url), "/v1/completions", {}, bodies, AT_ONCE, lambda: done.append(1)
        )
    assert [outcome.error for outcome in outcomes] == [None] * 7
    assert len(done) == 7
    assert {outcome.prompt_tokens for outcome in outcomes} == {3}
    assert {outcome.output_tokens for outcome in outcomes} == {4}
    for outcome in outcomes:
        assert outcome.first is not None and outcome.last is not None
        assert outcome.sent <= outcome.first <= outcome.last <= outcome.done


async def test_warm_ups_are_sent_at_once_with_prompts_that_nothing_measured_has() -> None:
    most = 0

    def script(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        async def stream() -> AsyncIterator[list[ChoiceDelta]]:
            nonlocal most
            if len(llm.requests) <= 4:
                most = max(most, llm.active)
                await until(lambda: most == 4)
            async for delta in letters(request):
                yield delta

        return stream()

    async def prompts(num_warmups: int, seed: int) -> list[tuple[int, ...]]:
        llm.requests.clear()
        words = ["--base-url", url, "--model", "fake", "--disable-tqdm", "--num-prompts", "6"]
        words += ["--num-warmups", str(num_warmups), "--seed", str(seed), "--max-concurrency", "4"]
        words += ["--random-input-len", "9", "--random-output-len", "2", "--min-token-id", "0"]
        assert await asyncio.to_thread(serve.main, [*words, "--max-token-id", "256"]) == 0
        return [request.prompt_token_ids for request in llm.requests]

    llm = FakeLLM(script)
    async with serving(llm) as url:
        warmed = await prompts(4, seed=1)
        assert most == 4
        bare, other = await prompts(0, seed=1), await prompts(0, seed=2)
    assert len(warmed) == 10 and len(set(warmed)) == 10
    assert set(warmed[4:]) == set(bare)
    assert not set(bare) & set(other)


async def test_a_warm_up_that_fails_ends_the_run() -> None:
    async with serving(FakeLLM()) as url:
        words = ["--base-url", url, "--model", "other", "--disable-tqdm"]
        with pytest.raises(ApiError, match="warm-up request failed: HTTP 404"):
            await asyncio.to_thread(serve.main, words)


async def test_a_refused_request_is_an_outcome_and_the_others_go_on() -> None:
    async with serving(FakeLLM()) as url:
        bodies = [body(), body(model="other"), body()]
        outcomes = await drive(
            Address.parse(url), "/v1/completions", {}, bodies, AT_ONCE, lambda: None
        )
    errors = [outcome.error for outcome in outcomes if outcome.error]
    assert len(errors) == 1
    assert "404" in errors[0] and "other" in errors[0]


async def body_of(pieces: list[bytes]) -> bytes:
    """What the client makes of an answer that comes in these pieces."""
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)
        writer.close()
        await writer.wait_closed()
        answered.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with closing(Connection(Address("127.0.0.1", port, "", False), {})) as connection:
            status, found = await connection.post("/", b"{}")
            assert status == 200
            try:
                return b"".join([piece async for piece in found])
            finally:
                await answered.wait()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_a_body_in_chunks_is_the_same_however_it_is_split(size: int) -> None:
    chunks = [b"a", b"\r\n", b"0123456789" * 3, b"0\r\n\r\n"]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    pieces = [framed[start : start + size] for start in range(0, len(framed), size)]
    assert await body_of(pieces) == b"".join(chunks)


async def test_a_body_that_breaks_off_is_an_error() -> None:
    with pytest.raises(EOFError):
        await body_of([b"3\r\nabc\r\n5\r\nde"])


async def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    outcomes = await drive(
        Address.parse("http://127.0.0.1:9"), "/v1/completions", {}, [body()], AT_ONCE, lambda: None
    )
    assert outcomes[0].error is not None and "Error" in outcomes[0].error


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        Address.parse(url)


def test_the_summary_adds_up() -> None:
    outcomes = [
        Outcome(sent=0.0, first=0.5, last=1.5, done=2.0, gaps=[0.5, 0.5], prompt_tokens=7,
                output_tokens=3),
        Outcome(sent=0.0, error="HTTP 500", done=1.0),
    ]  # fmt: skip
    values = serve.summarise(outcomes, 2.0, [50.0, 99.0])
    assert (values["completed"], values["failed"]) == (1, 1)
    assert values["output_throughput"] == 1.5
    assert values["total_token_throughput"] == 5.0
    assert values["median_ttft_ms"] == 500.0
    assert values["mean_tpot_ms"] == 500.0
    assert values["p99_itl_ms"] == 500.0
    assert values["errors"] == {"HTTP 500": 1}


def test_percentiles_are_those_of_the_standard_library() -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert [percentile(values, p) for p in range(1, 100)] == pytest.approx(cuts)
    assert spread("x", [], [50]) == {}


def test_the_offline_benchmarks_run_a_real_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The model's vocabulary is smaller than the ids of ordinary prompts.
    monkeypatch.setattr("jackfield.cli.bench.prompts.LOW_ID", 3)
    monkeypatch.setattr("jackfield.cli.bench.prompts.HIGH_ID", 400)
    out = tmp_path / "values.json"
    engine = [str(make("Qwen3ForCausalLM")), "--device", "cpu", "--max-model-len", "128"]
    engine += ["--no-use-tqdm-on-load", "--result-filename", str(out)]
    words = ["--batch-size", "2", "--input-len", "8", "--output-len", "4", "--num-iters", "1"]
    assert latency.main([*engine, *words]) == 0
    assert json.loads(out.read_text())["decode_step_ms"] > 0
    words = ["--num-prompts", "3", "--input-len", "9", "--min-input-len", "4", "--output-len", "5"]
    assert throughput.main([*engine, *words]) == 0
    values = json.loads(out.read_text())
    assert values["num_prompts"] == 3
    assert values["output_tokens_per_second"] == pytest.approx(15 / values["elapsed_time"])


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["speed"], "unknown command 'bench speed'"),
        (["sevre"], "did you mean 'serve'"),
        (["serve"], "the following arguments are required: --model"),
        (["serve", "--model", "m", "--base-url", "host"], "'host' is not an http or https URL"),
        (["serve", "--model", "m", "--request-rate", "0"], "--request-rate: 0 is not above 0"),
        (["serve", "--model", "m", "--num-prompts", "0"], "--num-prompts: 0 is not above 0"),
        (["serve", "--model", "m", "--metric-percentiles", "50,x"], "'50,x'"),
        (["serve", "--model", "m", "--metric-percentiles", "101"], "101 is not from 0 to 100"),
        (["latency", "--num-iters", "0"], "--num-iters: 0 is not above 0"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], part: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)) as error:
        main(words)
    assert "\n" not in str(error.value)


async def test_the_file_of_a_run_at_no_rate_is_json(tmp_path: Path) -> None:
    out = tmp_path / "values.json"
    words = ["--model", "fake", "--disable-tqdm", "--num-prompts", "2", "--random-output-len", "2"]
    words += ["--min-token-id", "0", "--max-token-id", "256", "--result-filename", str(out)]
    async with serving(FakeLLM()) as url:
        assert await asyncio.to_thread(serve.main, [*words, "--base-url", url]) == 0
    assert b"Infinity" not in out.read_bytes()
    assert json.loads(out.read_text())["request_rate"] == "inf"
