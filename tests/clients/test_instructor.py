"""Instructor: structured output through tools and through schemas."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from tests.clients.conftest import FORECAST

HELLO = [{"role": "user", "content": "hi"}]


class Forecast(BaseModel):
    city: str
    degrees: int


@pytest.fixture
def instructor() -> Any:
    return pytest.importorskip("instructor")


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA", "JSON"])
def test_openai(instructor: Any, server: str, mode: str) -> None:
    openai = pytest.importorskip("openai")
    client = instructor.from_openai(
        openai.OpenAI(base_url=f"{server}/v1", api_key="-"), mode=instructor.Mode[mode]
    )
    made = client.chat.completions.create(model="fake", messages=HELLO, response_model=Forecast)
    assert made.model_dump() == FORECAST
    *_, last = client.chat.completions.create_partial(
        model="fake", messages=HELLO, response_model=Forecast
    )
    assert last.model_dump() == FORECAST


def test_responses(instructor: Any, server: str) -> None:
    openai = pytest.importorskip("openai")
    client = instructor.from_openai(
        openai.OpenAI(base_url=f"{server}/v1", api_key="-"), mode=instructor.Mode.RESPONSES_TOOLS
    )
    made = client.responses.create(model="fake", input="hi", response_model=Forecast)
    assert made.model_dump() == FORECAST


def test_anthropic(instructor: Any, server: str) -> None:
    anthropic = pytest.importorskip("anthropic")
    client = instructor.from_anthropic(anthropic.Anthropic(base_url=server, api_key="-"))
    made = client.messages.create(
        model="fake", max_tokens=100, messages=HELLO, response_model=Forecast
    )
    assert made.model_dump() == FORECAST
