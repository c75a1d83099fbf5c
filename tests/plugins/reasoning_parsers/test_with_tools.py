"""A thought and then calls, through both parsers of a family, letter by letter."""

from __future__ import annotations

import pytest

from jackfield.contracts.text import (
    Content,
    Event,
    ParserContext,
    Reasoning,
    ToolCallStart,
)
from jackfield.registry import Registry
from jackfield_reasoning_parsers.bundled import FORMATS
from jackfield_reasoning_parsers.channels import Channels
from jackfield_tool_parsers.formats import all_formats

FAMILIES = {
    "apertus2509": "apertus",
    "cohere_command3": "cohere_command3",
    "ernie45": "ernie45",
    "gemma4": "gemma4",
    "glm45": "glm45",
    "hunyuan_a13b": "hunyuan_a13b",
    "hy_v3": "hy_v3",
    "inkling": "inkling",
    "k2_horizon": "k2_horizon",
    "kimi_k2": "kimi_k2",
    "kimi_k3": "kimi_k3",
    "minimax_m2": "minimax_m2",
    "minimax_m3": "minimax_m3",
    "mistral": "mistral",
    "muse_glimmer": "muse_glimmer",
    "openai_gptoss": "openai",
    "plamo3": "plamo3",
    "qwen3": "hermes",
    "seed_oss": "seed_oss",
}
ON = ParserContext(template_kwargs={"enable_thinking": True, "reasoning_effort": "high"})


def thought_of(name: str) -> str:
    """The beginning of the family's example, up to the end of the thought."""
    found = next(each for each in FORMATS if each.name == name)
    end = found.form.end if isinstance(found.form, Channels) else found.form.end[0]
    return found.example.partition("Hm.")[0] + "Hm." + end.replace("{suffix}", "")


def through(kind: str, name: str, text: str) -> list[Event]:
    parser = Registry().load(kind, name)(ON)
    return [*(event for letter in text for event in parser.feed(letter)), *parser.finish()]


def content_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Content))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_calls_behind_a_thought_reach_the_tool_parser_whole(name: str) -> None:
    formats = {made.name.replace("-", "_"): made for made in all_formats().values()}
    calls = formats[FAMILIES[name]].example
    first = through("reasoning_parsers", name, thought_of(name) + calls)
    assert "".join(event.text for event in first if isinstance(event, Reasoning)) == "Hm."
    second = through("tool_parsers", FAMILIES[name], content_of(first))
    names = [event.name for event in second if isinstance(event, ToolCallStart)]
    assert names == ["get_weather", "get_time"]
    assert content_of(second) == ""
