"""A plugin's hooks, in the server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
from fastapi import APIRouter
from prometheus_client.core import GaugeMetricFamily
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.test_metrics import record

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest, RequestRecord
from jackfield.errors import RequestError
from jackfield.hooks import Hooks, hookimpl
from jackfield.registry import PluginEntry
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.hooked import hooked_door
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
            return replace(delta, text=delta.text.upper())

        return upper

    @hookimpl
    def request_finished(self, record: RequestRecord) -> None:
        Plugin.finished.append(record)


async def test_a_plugin_hooks_into_every_part_of_the_server() -> None:
    entry = PluginEntry("hooks", "mine", "mine", "1", "tests.core.server.test_hooked:Plugin")
    hooks = Hooks([entry])
    llm = FakeLLM()
    app = build_app(Frontend(hooked_door(llm, hooks), ServerOptions(api_keys=("k",))), hooks)
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
