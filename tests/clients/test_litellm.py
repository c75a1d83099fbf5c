"""LiteLLM: over chat completions, over responses, over messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.clients.conftest import FORECAST, GREETING, TOLD

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
FORM = {
    "type": "json_schema",
    "json_schema": {
        "name": "forecast",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
            "required": ["city", "degrees"],
            "additionalProperties": False,
        },
    },
}
HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    # Its table of prices comes from the network otherwise.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    module = pytest.importorskip("litellm")
    module.telemetry = False
    return module


PROVIDERS = ["openai", "hosted_vllm", "anthropic"]


@pytest.fixture(params=PROVIDERS)
def where(request: pytest.FixtureRequest, server: str) -> dict[str, str]:
    return place(request.param, server)


def place(provider: str, server: str) -> dict[str, str]:
    base = server if provider == "anthropic" else f"{server}/v1"
    return {"model": f"{provider}/fake", "api_base": base, "api_key": "-"}


def test_chat(litellm: Any, where: dict[str, str]) -> None:
    answer = litellm.completion(messages=HELLO, **where)
    assert answer.choices[0].message.content.strip() == GREETING


def test_streaming(litellm: Any, where: dict[str, str]) -> None:
    chunks = litellm.completion(messages=HELLO, stream=True, **where)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.strip() == GREETING


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_tool_loop_of_a_model_that_thinks(
    litellm: Any, provider: str, thinking_server: str
) -> None:
    test_a_tool_loop(litellm, place(provider, thinking_server))


def test_a_tool_loop(litellm: Any, where: dict[str, str]) -> None:
    said: list[Any] = list(HELLO)
    answer = litellm.completion(messages=said, tools=[TOOL], **where)
    message = answer.choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    said += [message, {"role": "tool", "tool_call_id": call.id, "content": "20"}]
    last = litellm.completion(messages=said, tools=[TOOL], **where)
    assert last.choices[0].message.content.strip() == TOLD


def test_structured_output(litellm: Any, where: dict[str, str]) -> None:
    answer = litellm.completion(messages=HELLO, response_format=FORM, **where)
    assert json.loads(answer.choices[0].message.content) == FORECAST


def test_responses(litellm: Any, server: str) -> None:
    where = {"model": "openai/fake", "api_base": f"{server}/v1", "api_key": "-"}
    answer = litellm.responses(input="hi", **where)
    assert answer.output[0].content[0].text.strip() == GREETING
    last = list(litellm.responses(input="hi", stream=True, **where))[-1]
    assert last.type == "response.completed"
