"""LangChain: over chat completions, over responses, over messages."""

from __future__ import annotations

from typing import Any

import pytest
from tests.clients.conftest import FORECAST, GREETING, TOLD


@pytest.fixture(params=["chat", "responses", "messages"])
def model(request: pytest.FixtureRequest, server: str) -> Any:
    if request.param == "messages":
        anthropic = pytest.importorskip("langchain_anthropic")
        return anthropic.ChatAnthropic(model_name="fake", base_url=server, api_key="-")
    openai = pytest.importorskip("langchain_openai")
    return openai.ChatOpenAI(
        model="fake",
        base_url=f"{server}/v1",
        api_key="-",
        use_responses_api=request.param == "responses",
    )


def weather(city: str) -> str:
    """The weather of a city."""
    return f"20 degrees in {city}"


def test_chat(model: Any) -> None:
    answer = model.invoke("hi")
    assert answer.text.strip() == GREETING
    assert answer.usage_metadata["output_tokens"] > 0


def test_streaming(model: Any) -> None:
    chunks = list(model.stream("hi"))
    assert "".join(chunk.text for chunk in chunks).strip() == GREETING
    assert len(chunks) > 3


def test_a_tool_loop(model: Any) -> None:
    messages = pytest.importorskip("langchain_core.messages")
    bound = model.bind_tools([weather])
    said: list[Any] = [messages.HumanMessage("weather in Paris?")]
    said.append(bound.invoke(said))
    (call,) = said[-1].tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})
    said.append(messages.ToolMessage(weather(**call["args"]), tool_call_id=call["id"]))
    assert bound.invoke(said).text.strip() == TOLD


def test_structured_output(model: Any) -> None:
    schema = {
        "title": "forecast",
        "type": "object",
        "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
        "required": ["city", "degrees"],
        "additionalProperties": False,
    }
    for method in ("json_schema", "function_calling"):
        assert model.with_structured_output(schema, method=method).invoke("hi") == FORECAST
