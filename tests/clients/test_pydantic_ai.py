"""Pydantic AI: over chat completions, over responses, over messages."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from tests.clients.conftest import FORECAST, GREETING, TOLD


class Forecast(BaseModel):
    city: str
    degrees: int


@pytest.fixture
def ai() -> Any:
    return pytest.importorskip("pydantic_ai")


@pytest.fixture(params=["chat", "responses", "messages"])
def model(request: pytest.FixtureRequest, ai: Any, server: str) -> Any:
    if request.param == "messages":
        models: Any = pytest.importorskip("pydantic_ai.models.anthropic")
        providers: Any = pytest.importorskip("pydantic_ai.providers.anthropic")
        types: Any = pytest.importorskip("anthropic.types")
        try:
            types.MessageParam(role="user", content="hi")
        except TypeError:
            pytest.skip("Pydantic AI makes a MessageParam, which this anthropic SDK forbids")
        provider = providers.AnthropicProvider(base_url=server, api_key="-")
        return models.AnthropicModel("fake", provider=provider)
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")
    provider = providers.OpenAIProvider(base_url=f"{server}/v1", api_key="-")
    kind = models.OpenAIChatModel if request.param == "chat" else models.OpenAIResponsesModel
    return kind("fake", provider=provider)


async def test_chat(ai: Any, model: Any) -> None:
    result = await ai.Agent(model, instructions="be kind").run("hi")
    assert result.output.strip() == GREETING


async def test_streaming(ai: Any, model: Any) -> None:
    async with ai.Agent(model).run_stream("hi") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces).strip() == GREETING and len(pieces) > 3


async def test_a_tool_loop(ai: Any, model: Any) -> None:
    asked: list[str] = []

    def weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "20"

    result = await ai.Agent(model, tools=[weather]).run("weather?")
    assert result.output.strip() == TOLD and asked == ["Paris"]


async def test_structured_output(ai: Any, model: Any) -> None:
    expected = Forecast.model_validate(FORECAST)
    assert (await ai.Agent(model, output_type=Forecast).run("hi")).output == expected
    if "Anthropic" in type(model).__name__:
        return  # Pydantic AI allows schemas for Anthropic's own models only
    native = ai.NativeOutput(Forecast)
    assert (await ai.Agent(model, output_type=native).run("hi")).output == expected
