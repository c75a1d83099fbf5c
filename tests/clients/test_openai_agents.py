"""OpenAI's agents, over responses and over chat completions."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from tests.clients.conftest import FORECAST, GREETING, TOLD


class Forecast(BaseModel):
    city: str
    degrees: int


@pytest.fixture
def agents() -> Any:
    module = pytest.importorskip("agents", reason="openai-agents is not installed")
    module.set_tracing_disabled(True)
    return module


@pytest.fixture(params=["responses", "chat"])
def model(request: pytest.FixtureRequest, agents: Any, server: str) -> Any:
    openai = pytest.importorskip("openai")
    client = openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="-")
    if request.param == "chat":
        return agents.OpenAIChatCompletionsModel(model="fake", openai_client=client)
    return agents.OpenAIResponsesModel(model="fake", openai_client=client)


async def test_chat(agents: Any, model: Any) -> None:
    agent = agents.Agent(name="a", instructions="be kind", model=model)
    assert (await agents.Runner.run(agent, "hi")).final_output.strip() == GREETING


async def test_streaming(agents: Any, model: Any) -> None:
    agent = agents.Agent(name="a", model=model)
    result = agents.Runner.run_streamed(agent, "hi")
    text = ""
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    assert text.strip() == result.final_output.strip() == GREETING


async def test_a_tool_loop(agents: Any, model: Any) -> None:
    asked: list[str] = []

    def weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "20"

    agent = agents.Agent(name="a", model=model, tools=[agents.function_tool(weather)])
    assert (await agents.Runner.run(agent, "weather?")).final_output.strip() == TOLD
    streamed = agents.Runner.run_streamed(agent, "weather?")
    async for _ in streamed.stream_events():
        pass
    assert streamed.final_output.strip() == TOLD and asked == ["Paris", "Paris"]


async def test_structured_output(agents: Any, model: Any) -> None:
    agent = agents.Agent(name="a", model=model, output_type=Forecast)
    result = await agents.Runner.run(agent, "hi")
    assert result.final_output == Forecast.model_validate(FORECAST)


async def test_a_session_goes_on(agents: Any, model: Any) -> None:
    agent = agents.Agent(name="a", model=model)
    first = await agents.Runner.run(agent, "hi")
    said = [*first.to_input_list(), {"role": "user", "content": "more"}]
    assert (await agents.Runner.run(agent, said)).final_output.strip() == GREETING
    if type(model) is agents.OpenAIResponsesModel:
        then = await agents.Runner.run(agent, "more", previous_response_id=first.last_response_id)
        assert then.final_output.strip() == GREETING
