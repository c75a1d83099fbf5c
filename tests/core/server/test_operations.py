"""Probes, controls, and which of them exist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.core.server.fake_llm import FakeLLM, FakePlan
from tests.core.server.http_server import in_process

from jackfield.config.settings import make_settings
from jackfield.errors import EngineError
from jackfield.server.options import options_from_settings

PROBES = ("/health", "/health/live", "/health/ready", "/ping")
CONTROLS = {
    "/reset_prefix_cache": "enable_reset_prefix_cache",
    "/sleep": "enable_sleep_mode",
    "/wake_up": "enable_sleep_mode",
    "/is_sleeping": "enable_sleep_mode",
    "/tokenizer_info": "enable_tokenizer_info",
    "/server_info": "server_dev_mode",
    "/collective_rpc": "server_dev_mode",
}


@pytest.mark.parametrize("path", PROBES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_probes_answer_without_a_key_and_without_a_body(path: str, method: str) -> None:
    async with in_process(FakeLLM(), api_keys=("k",)) as http:
        answer = await http.request(method, path)
    # As in vLLM, /ping is GET and POST.
    if method == ("HEAD" if path == "/ping" else "POST"):
        assert answer.status_code == 405
    else:
        assert (answer.status_code, answer.content) == (200, b"")


async def test_a_dead_engine_is_alive_but_neither_healthy_nor_ready() -> None:
    llm = FakeLLM()
    llm.death = EngineError("killed")
    async with in_process(llm) as http:
        statuses = [(await http.get(path)).status_code for path in PROBES]
        assert statuses == [503, 200, 503, 503]


async def test_a_sleeping_engine_is_healthy_and_not_ready() -> None:
    llm = FakeLLM()
    async with in_process(llm, enable_sleep_mode=True) as http:
        assert (await http.get("/is_sleeping")).json() == {"is_sleeping": False}
        assert (await http.post("/sleep", params={"level": "2"})).status_code == 200
        assert llm.slept == [2]
        assert (await http.get("/is_sleeping")).json() == {"is_sleeping": True}
        statuses = [(await http.get(path)).status_code for path in PROBES]
        assert statuses == [200, 200, 503, 200]
        refused = await http.post("/v1/completions", json={"prompt": "a"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "sleeps" in refused.json()["error"]["message"]
        assert (await http.post("/wake_up")).status_code == 200
        assert (await http.post("/v1/completions", json={"prompt": "a"})).status_code == 200
        assert (await http.post("/sleep")).status_code == 200
        assert llm.slept == [2, 1]
        assert (await http.post("/sleep", params={"level": "7"})).status_code == 400


@pytest.mark.parametrize(("path", "option"), CONTROLS.items())
async def test_controls_are_off_unless_a_flag_turns_them_on(path: str, option: str) -> None:
    async with in_process(FakeLLM()) as http:
        for method in ("GET", "POST"):
            assert (await http.request(method, path)).status_code == 404
    async with in_process(FakeLLM(), api_keys=("k",), **{option: True}) as http:
        for method in ("GET", "POST"):
            assert (await http.request(method, path)).status_code == 401


async def test_the_tokenizers_configuration_is_shown(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Own", "a": 1}')
    llm = FakeLLM(plan=FakePlan(tokenizer_directory=tmp_path))
    async with in_process(llm, enable_tokenizer_info=True) as http:
        shown = (await http.get("/tokenizer_info")).json()
        llm.ready, llm.tokenizer = None, None
        assert (await http.get("/tokenizer_info")).status_code == 503
    assert shown == {"tokenizer_class": "Own", "a": 1, "chat_template": None}


async def test_server_info_shows_options_and_no_key() -> None:
    settings = make_settings({"model": "m", "api_key": ("secret",), "server_dev_mode": True})
    shown = dict(options_from_settings(settings).shown_settings)
    assert shown["server_dev_mode"] is True and shown["model"] == "m"
    assert "secret" not in json.dumps(shown)
    assert not options_from_settings(make_settings({"model": "m"})).shown_settings
    async with in_process(FakeLLM(), server_dev_mode=True, shown_settings=shown) as http:
        assert (await http.get("/server_info")).json() == {"config": shown}


async def test_methods_of_workers_are_called_in_dev_mode() -> None:
    async with in_process(FakeLLM(), server_dev_mode=True) as http:
        call = {"method": "echo", "args": [1, "a"], "kwargs": {"b": None}, "timeout": 2.5}
        said = await http.post("/collective_rpc", json=call)
        result = {"args": [1, "a"], "kwargs": {"b": None}, "timeout": 2.5}
        assert said.json() == {"results": [result]}
        # As curl sends it, with a form's content type.
        curl = {"content-type": "application/x-www-form-urlencoded"}
        bare = await http.post("/collective_rpc", content='{"method": "echo"}', headers=curl)
        assert bare.json() == {"results": [{"args": [], "kwargs": {}, "timeout": None}]}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"method": "nothing"}, 400, "method"),
        ({"method": "fails"}, 422, None),
        ({"method": "slow", "timeout": 0.1}, 422, None),
        ({}, 400, "method"),
        ({"method": 7}, 400, "method"),
        ({"method": "echo", "args": "ab"}, 400, "args"),
        ({"method": "echo", "timeout": 0}, 400, "timeout"),
        ({"method": "echo", "other": 1}, 400, "other"),
        ([], 400, None),
    ],
)
async def test_calls_that_cannot_be_made_say_which_field(
    body: object, status: int, param: str | None
) -> None:
    async with in_process(FakeLLM(), server_dev_mode=True) as http:
        answer = await http.post("/collective_rpc", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
