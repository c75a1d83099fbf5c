"""A plugin's hooks, in the server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import msgspec
from fastapi import APIRouter
from prometheus_client.core import GaugeMetricFamily
from tests.core.server.fake_llm import EMBED, FakeLLM, FakePlan
from tests.core.server.test_metrics import record

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest, RequestRecord
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.errors import RequestError
from jackfield.hooks import Hooks, hookimpl
from jackfield.registry import PluginEntry
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.options import ServerOptions

TEXT = "/v1/completions"
router = APIRouter()


@router.get("/hello")
async def hello() -> dict[str, str]:
    return {"hello": "there"}


class Stamp:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def stamped(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-stamp", b"yes"))
            await send(message)

        await self.app(scope, receive, stamped)


class Good:
    def collect(self) -> Any:
        yield GaugeMetricFamily("mine", "mine", value=7)


class Broken:
    def __init__(self) -> None:
        self.calls = 0

    def collect(self) -> Any:
        self.calls += 1
        raise RuntimeError("broken")
        yield


class Plugin:
    finished: list[RequestRecord]

    def __init__(self) -> None:
        Plugin.finished = []

    @hookimpl
    def asgi_middleware(self) -> Any:
        return Stamp

    @hookimpl
    def routes(self) -> Any:
        return router

    @hookimpl
    def metrics(self) -> Any:
        return [Broken(), Good()]

    @hookimpl
    def request_filter(self) -> Any:
        def check(request: GenerationRequest) -> GenerationRequest:
            if request.prompt_text == "bad":
                raise RequestError("no", param="prompt")
            return replace(request, priority=9)

        return check

    @hookimpl
    def response_filter(self) -> Any:
        def upper(request: GenerationRequest, delta: ChoiceDelta) -> ChoiceDelta:
            return msgspec.structs.replace(delta, text=delta.text.upper())

        return upper

    @hookimpl
    def request_finished(self, record: RequestRecord) -> None:
        Plugin.finished.append(record)


async def test_a_plugin_hooks_into_every_part_of_the_server() -> None:
    entry = PluginEntry("hooks", "mine", "mine", "1", "tests.core.server.test_hooked:Plugin")
    hooks = Hooks([entry])
    llm = FakeLLM()
    app = build_app(Frontend(llm, ServerOptions(api_keys=("k",))), hooks)
    transport = httpx.ASGITransport(app=app)
    headers = {"authorization": "Bearer k"}
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as http:
        assert (await http.get("/hello")).status_code == 401
        http.headers.update(headers)
        assert (await http.get("/hello")).json() == {"hello": "there"}
        answer = await http.post(TEXT, json={"prompt": "a", "max_tokens": 2})
        assert answer.json()["choices"][0]["text"] == "AB"
        assert answer.headers["x-stamp"] == "yes"
        stream = await http.post(TEXT, json={"prompt": "a", "max_tokens": 2, "stream": True})
        assert '"text":"A"' in stream.text
        refused = await http.post(TEXT, json={"prompt": "bad"})
        assert refused.json()["error"]["param"] == "prompt"
        for _ in range(2):
            metrics = (await http.get("/metrics")).text
            assert "mine 7.0" in metrics and "jackfield:request_success_total" in metrics
    assert [request.priority for request in llm.requests] == [9, 9]
    for observer in llm.observers:
        observer.request_finished(record())
    assert len(Plugin.finished) == 1


class PoolingPlugin:
    @hookimpl
    def pooling_request_filter(self) -> Any:
        def check(request: PoolingRequest) -> PoolingRequest:
            if request.prompt_text == "bad":
                raise RequestError("no", param="input")
            return replace(request, prompt_token_ids=(7, *request.prompt_token_ids))

        return check

    @hookimpl
    def pooled_filter(self) -> Any:
        def double(request: PoolingRequest, pooled: Pooled) -> Pooled:
            if request.prompt_text == "fails":
                raise ZeroDivisionError("secret detail")
            return replace(pooled, vector=pooled.vector * 2)

        return double


async def test_prompts_that_are_pooled_and_their_vectors_pass_filters() -> None:
    entry = PluginEntry("hooks", "mine", "mine", "1", "tests.core.server.test_hooked:PoolingPlugin")
    hooks = Hooks([entry])
    llm = FakeLLM(plan=FakePlan(pooling=EMBED))
    app = build_app(Frontend(llm, ServerOptions()), hooks)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as http:
        asked = {"input": ["a", "b"], "normalize": False}
        answer = await http.post("/v1/embeddings", json=asked)
        vectors = [entry["embedding"] for entry in answer.json()["data"]]
        # The first id, the last, their number, and 1: doubled.
        assert vectors == [[14, 2 * ord("a"), 4, 2], [14, 2 * ord("b"), 4, 2]]
        refused = await http.post("/v1/embeddings", json={"input": "bad"})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "input"
        failed = await http.post("/v1/embeddings", json={"input": "fails"})
    assert failed.status_code == 500 and "secret" not in failed.text
    assert [len(request.prompt_token_ids) for request in llm.pooled] == [2, 2, 6]
