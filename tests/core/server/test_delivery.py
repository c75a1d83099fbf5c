"""Clients that leave, engines that die, readers that are slow."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.core.server.fake_llm import FakeLLM, letters
from tests.core.server.http_server import client, in_process, serving
from tests.waiting import until

from jackfield.contracts.generation import ChoiceDelta, Finish, GenerationRequest
from jackfield.errors import EngineError, RequestError
from jackfield.server import delivery
from jackfield.server.completion_answer import CompletionAnswer

TEXT = "/v1/completions"


async def endless(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
    while True:
        await asyncio.sleep(0.005)
        yield [ChoiceDelta(index=0, text="a", token_ids=(97,))]


async def silent(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
    await asyncio.sleep(3600)
    yield []


@pytest.mark.parametrize("script", [endless, silent])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", ["a", ["a", "b", "c"]])
async def test_a_client_that_leaves_closes_its_streams(
    script: Any, stream: bool, prompt: Any
) -> None:
    llm = FakeLLM(script)
    expected = 1 if isinstance(prompt, str) else len(prompt)
    async with serving(llm) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            body = {"prompt": prompt, "stream": stream}
            task = asyncio.create_task(http.post(TEXT, json=body))
            await until(lambda: llm.active == expected)
            task.cancel()
            await asyncio.wait({task})
        await until(lambda: llm.closed == expected)
        assert llm.active == 0
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/load")).json() == {"server_load": 0}


def failing(error: Exception, after: int) -> Any:
    async def stream(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        for _ in range(after):
            yield [ChoiceDelta(index=0, text="a", token_ids=(97,))]
        raise error

    return stream


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("no", param="max_tokens"), 400),
        (EngineError("the engine process died"), 503),
        (RuntimeError("secret"), 503),
    ],
)
async def test_an_error_before_the_first_token_is_a_status(
    error: Exception, status: int, prompt: Any, stream: bool
) -> None:
    async with client(FakeLLM(failing(error, 0))) as http:
        answer = await http.post(TEXT, json={"prompt": prompt, "stream": stream})
    assert answer.status_code == status
    assert "secret" not in answer.text
    assert answer.json()["error"]["message"]


async def test_an_error_after_the_first_token_is_the_last_event() -> None:
    async with client(FakeLLM(failing(EngineError("gone"), 2))) as http:
        answer = await http.post(TEXT, json={"prompt": "a", "stream": True})
    frames = answer.text.split("\n\n")
    assert answer.status_code == 200
    assert frames[-2:] == ["data: [DONE]", ""]
    assert json.loads(frames[-3][6:])["error"]["code"] == "engine_dead"


@pytest.mark.parametrize(("reason", "status"), [("error", 422), ("abort", 503)])
async def test_a_choice_that_failed_fails_its_request(reason: Any, status: int) -> None:
    async def stream(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        finish = Finish(reason, message="it went wrong")
        yield [ChoiceDelta(index=0, text="", token_ids=(), finish=finish)]

    async with client(FakeLLM(stream)) as http:
        for streamed in (False, True):
            answer = await http.post(TEXT, json={"prompt": "a", "stream": streamed})
            assert answer.status_code == status


async def test_a_large_answer_is_written_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    in_loop: list[bool] = []
    write = CompletionAnswer.body

    def body(self: CompletionAnswer) -> bytes:
        in_loop.append(threading.current_thread() is threading.main_thread())
        return write(self)

    monkeypatch.setattr(CompletionAnswer, "body", body)
    monkeypatch.setattr(delivery, "LARGE_ANSWER_DELTAS", 8)
    async with in_process(FakeLLM()) as http:
        for more in ({"max_tokens": 7}, {"max_tokens": 8}, {"max_tokens": 1, "prompt_logprobs": 1}):
            answer = (await http.post(TEXT, json={"prompt": "hello", **more})).json()
            assert answer["choices"][0]["text"] == "abcdefgh"[: more["max_tokens"]]
    assert in_loop == [True, False, False]


async def test_what_is_ready_together_goes_out_together() -> None:
    seen = asyncio.Event()

    async def stream(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        yield [ChoiceDelta(index=0, text=text, token_ids=(97,)) for text in "abc"]
        await seen.wait()
        yield [ChoiceDelta(index=0, text="d", token_ids=(97,), finish=Finish("stop"))]

    parts = []
    async with client(FakeLLM(stream)) as http:
        async with http.stream("POST", TEXT, json={"prompt": "a", "stream": True}) as answer:
            async for part in answer.aiter_raw():
                parts.append(part)
                seen.set()
    assert [part.count(b"data:") for part in parts] == [3, 2]


async def test_a_slow_reader_holds_back_its_own_stream_alone() -> None:
    produced = 0

    async def flood(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        nonlocal produced
        if request.prompt_text == "other":
            async for deltas in letters(request):
                yield deltas
            return
        while True:
            produced += 1
            await asyncio.sleep(0)
            yield [ChoiceDelta(index=0, text="x" * 10_000, token_ids=(97,))]

    llm = FakeLLM(flood)
    async with serving(llm) as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        body = b'{"prompt": "slow", "stream": true}'
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
            + body
        )
        await until(lambda: produced > 1)
        last = -1
        while last != produced:
            last = produced
            await asyncio.sleep(0.1)
        async with httpx.AsyncClient(base_url=url) as http:
            answer = await http.post(TEXT, json={"prompt": "other"})
            assert answer.status_code == 200
        assert produced == last
        writer.close()
        await writer.wait_closed()
        del reader
        await until(lambda: llm.active == 0)


async def test_streams_do_not_share_headers_that_middleware_changes() -> None:
    async with client(FakeLLM(), allowed_origins=("http://a",)) as http:
        for _ in range(3):
            answer = await http.post(
                TEXT, json={"prompt": "a", "stream": True}, headers={"origin": "http://a"}
            )
            assert answer.headers.get_list("vary") == ["Origin"]
            assert answer.headers["access-control-allow-origin"] == "http://a"
