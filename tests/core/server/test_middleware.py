"""What passes before a route, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import client, in_process

from jackfield.errors import ConfigError
from jackfield.hooks import Hooks
from jackfield.registry import Registry
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.middleware import load_middleware
from jackfield.server.options import ServerOptions

TEXT = "/v1/completions"
KEYS = {"api_keys": ("one", "two")}


@pytest.mark.parametrize("path", ["/health", "/ping"])
async def test_liveness_needs_no_key(path: str) -> None:
    async with in_process(FakeLLM(), **KEYS) as http:
        assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/metrics", "/version", "/docs", "/openapi.json", "/load", "/nothing",
     "/health/", "//health", "/HEALTH"],
)  # fmt: skip
async def test_every_other_path_needs_a_key(path: str) -> None:
    async with in_process(FakeLLM(), **KEYS) as http:
        for headers in ({}, {"authorization": "Bearer no"}, {"authorization": "Basic one"}):
            answer = await http.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("key", ["one", "two"])
async def test_each_key_opens(key: str) -> None:
    async with in_process(FakeLLM(), **KEYS) as http:
        headers = {"authorization": f"Bearer {key}"}
        assert (await http.get("/v1/models", headers=headers)).status_code == 200
        answer = await http.post(TEXT, json={"prompt": "a"}, headers=headers)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("x-api-key", "two")], 200),
        ([("authorization", "bearer  one ")], 200),
        ([("authorization", "Bearer no"), ("x-api-key", "one")], 200),
        ([("authorization", "Bearer one"), ("authorization", "Bearer one")], 401),
        ([("authorization", "Bearer one"), ("authorization", "Basic one")], 401),
        ([("x-api-key", "one"), ("x-api-key", "two")], 401),
        ([("x-api-key", "Bearer one")], 401),
        ([("authorization", "one")], 401),
    ],
)
async def test_one_header_of_a_kind_holds_a_key(
    headers: list[tuple[str, str]], status: int
) -> None:
    async with in_process(FakeLLM(), **KEYS) as http:
        assert (await http.get("/v1/models", headers=headers)).status_code == status


@pytest.mark.parametrize("prefix", ["/api", ""])
async def test_a_root_path_may_be_stripped_by_the_proxy_or_not(prefix: str) -> None:
    async with in_process(FakeLLM(), root_path="/api", **KEYS) as http:
        assert (await http.get(f"{prefix}/health")).status_code == 200
        assert (await http.get(f"{prefix}/v1/models")).status_code == 401
        headers = {"authorization": "Bearer one"}
        assert (await http.get(f"{prefix}/v1/models", headers=headers)).status_code == 200
        answer = await http.post(f"{prefix}{TEXT}", json={"prompt": "a"}, headers=headers)
        assert answer.status_code == 200
        assert (await http.get("/api/health/v1/models")).status_code == 401


async def test_browsers_may_ask_before_they_authenticate() -> None:
    headers = {"origin": "http://a", "access-control-request-method": "POST"}
    async with in_process(FakeLLM(), allowed_origins=("http://a",), **KEYS) as http:
        assert (await http.options(TEXT, headers=headers)).status_code == 200
        refused = await http.post(TEXT, json={}, headers={"origin": "http://a"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "http://a"
        other = await http.get("/health", headers={"origin": "http://b"})
        assert "access-control-allow-origin" not in other.headers


def test_credentials_for_every_origin_are_refused() -> None:
    with pytest.raises(ConfigError, match="--allow-credentials"):
        build_app(Frontend(FakeLLM(), ServerOptions(allow_credentials=True)), Hooks())


async def test_bodies_have_a_bound_with_or_without_a_length() -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 1000

    async with client(FakeLLM(), max_body_bytes=10_000) as http:
        for path in (TEXT, "/tokenize"):
            for content in (b" " * 10_001, chunks()):
                answer = await http.post(path, content=content)
                assert answer.status_code == 413
                assert answer.json()["error"]["code"] == "body_too_large"
        fits = b'{"prompt": "a"' + b" " * 9000 + b"}"
        assert (await http.post(TEXT, content=fits)).status_code == 200


async def test_header_fields_have_a_bound() -> None:
    headers = {f"x-{index}": "a" for index in range(120)}
    async with in_process(FakeLLM()) as http:
        assert (await http.get("/health", headers=headers)).status_code == 400


async def test_request_ids_come_back() -> None:
    async with in_process(FakeLLM(), enable_request_id_headers=True) as http:
        answer = await http.post(TEXT, json={"prompt": "a"}, headers={"x-request-id": "abc"})
        assert answer.headers["x-request-id"] == "abc"
        assert answer.json()["id"] == "cmpl-abc"
        assert len((await http.get("/health")).headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", TEXT, 405), ("PUT", "/tokenize", 405)],
)
async def test_what_is_not_routed_gets_an_error_object(method: str, path: str, status: int) -> None:
    async with in_process(FakeLLM()) as http:
        answer = await http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


class Stamp:
    """A middleware as a user writes one."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/v1/models":
            raise RuntimeError("secret")

        async def stamped(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-stamp", b"yes"))
            await send(message)

        await self.app(scope, receive, stamped)


async def function(request: Any, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["x-function"] = "yes"
    return response


async def test_middleware_of_the_user_runs_around_every_route() -> None:
    here = "tests.core.server.test_middleware"
    paths = (f"{here}.Stamp", f"{here}:function")
    async with client(FakeLLM(), middleware=paths) as http:
        answer = await http.post(TEXT, json={"prompt": "a"})
        assert answer.headers["x-stamp"] == answer.headers["x-function"] == "yes"
        assert answer.json()["choices"][0]["text"]


def test_middleware_that_is_not_there_is_a_config_error() -> None:
    for path in ("nothing.Here", "json.Nothing", "plain", "json:dumps"):
        with pytest.raises(ConfigError, match="--middleware"):
            load_middleware(path, Registry())


async def test_the_document_describes_the_bodies() -> None:
    async with in_process(FakeLLM()) as http:
        document = (await http.get("/openapi.json")).json()
        assert (await http.get("/openapi.json")).json() == document
    schema = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
    assert schema["application/json"]["schema"]["$ref"].endswith("ChatRequest")
    fields = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"messages", "temperature", "tools", "top_k"} <= fields.keys()
    assert "Tool" in document["components"]["schemas"]
    async with in_process(FakeLLM(), enable_docs=False) as http:
        assert (await http.get("/openapi.json")).status_code == 404


async def test_control_routes_are_off_unless_asked_for() -> None:
    llm = FakeLLM()
    async with in_process(llm) as http:
        assert (await http.post("/reset_prefix_cache")).status_code == 404
    async with in_process(llm, enable_reset_prefix_cache=True) as http:
        assert (await http.post("/reset_prefix_cache")).status_code == 200
    assert llm.resets == 1
