"""The logits processors that a request names, and what the server says it runs."""

from __future__ import annotations

import json

import httpx
import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import in_process

from jackfield.contracts.sampling import ProcessorCall
from jackfield.errors import RequestError
from jackfield.hooks import Hooks
from jackfield.registry import Registry
from jackfield.registry.active import active_plugin
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.options import ServerOptions
from jackfield.server.processors import processor_calls

TEXT = "/v1/completions"


def test_names_and_objects_become_calls() -> None:
    named = ["acme.ban", {"qualname": "acme.keep", "kwargs": {"ids": [1]}}]
    assert processor_calls(named, r"acme\..*") == (
        ProcessorCall("acme.ban"),
        ProcessorCall("acme.keep", {"ids": [1]}),
    )


@pytest.mark.parametrize(
    ("named", "pattern", "part"),
    [
        (["acme.ban"], None, "lets no request name"),
        (["acme.ban.more"], "acme.ban", "does not allow"),
        (["x" * 300], ".*", "does not allow"),
        ([3], ".*", "must be names"),
        ([{"qualname": "a", "kwargs": 3}], ".*", "must be names"),
        ([{"qualname": "a", "args": [1]}], ".*", "nothing else"),
        ([{"qualname": "a", "other": 1}], ".*", "nothing else"),
    ],
)
def test_what_is_not_allowed_is_refused(
    named: list[object], pattern: str | None, part: str
) -> None:
    with pytest.raises(RequestError, match=part) as error:
        processor_calls(named, pattern)
    assert error.value.param == "logits_processors"


async def test_a_request_carries_them_to_the_engine() -> None:
    llm = FakeLLM()
    body = {
        "prompt": "a",
        "max_tokens": 2,
        "logits_processors": ["ban"],
        "vllm_xargs": {"forbidden": [3]},
        "user": "ann",
    }
    async with in_process(llm, logits_processor_pattern="ban|keep") as http:
        assert (await http.post(TEXT, json=body)).status_code == 200
        refused = await http.post(TEXT, json={**body, "logits_processors": ["bann"]})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "logits_processors"
    (request,) = llm.requests
    assert request.sampling.logits_processors == (ProcessorCall("ban"),)
    assert request.sampling.extra_args == {"forbidden": [3]}
    assert request.user == "ann"


async def test_version_and_metrics_tell_the_plugins_in_use() -> None:
    registry = Registry()
    plugins = [active_plugin(registry, "schedulers", "fcfs")]
    plugins.append(active_plugin(registry, "workers", "some.module:Worker"))
    app = build_app(Frontend(FakeLLM(), ServerOptions()), Hooks(), registry, plugins)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as http:
        told = json.loads((await http.get("/version")).content)["plugins"]
        metrics = (await http.get("/metrics")).text
    assert told[0]["name"] == "fcfs" and told[0]["distribution"] == "jackfield"
    assert told[0]["api_version"] == 1 and len(told[0]["sha256"]) == 64
    assert told[1]["distribution"] == "given at the start" and told[1]["api_version"] is None
    assert "jackfield:plugin_info{" in metrics and 'name="fcfs"' in metrics
