"""Simon Willison's ``llm``: its OpenAI model with another address."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.clients.conftest import FORECAST, GREETING, TOLD


@pytest.fixture
def model(server: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    pytest.importorskip("llm")
    models: Any = pytest.importorskip("llm.default_plugins.openai_models")
    made = models.Chat(
        "fake",
        model_name="fake",
        api_base=f"{server}/v1",
        supports_schema=True,
        supports_tools=True,
        can_stream=True,
    )
    made.key = "-"
    return made


def weather(city: str) -> str:
    """The weather of a city."""
    return f"20 degrees in {city}"


@pytest.mark.parametrize("stream", [False, True])
def test_chat(model: Any, stream: bool) -> None:
    answer = model.prompt("hi", stream=stream)
    assert "".join(answer).strip() == GREETING


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop(model: Any, stream: bool) -> None:
    chain = model.chain("weather in Paris?", tools=[weather], stream=stream)
    assert chain.text().strip() == TOLD


def test_structured_output(model: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
        "required": ["city", "degrees"],
        "additionalProperties": False,
    }
    assert json.loads(model.prompt("hi", schema=schema, stream=False).text()) == FORECAST
