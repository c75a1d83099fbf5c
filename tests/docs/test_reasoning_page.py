"""The examples of docs/reasoning.md run, and keep the laws of the kit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jackfield.config.plan import PluginSource
from jackfield.contracts.text import Content, ParserContext, Reasoning
from jackfield.registry import Registry
from jackfield.server.chat_request import ChatRequest
from jackfield.testing import ReasoningParserContract

PAGE = (Path(__file__).parents[2] / "docs" / "reasoning.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def shouting() -> type[Any]:
    names: dict[str, Any] = {"__name__": __name__}
    exec(example("python"), names)  # the page's own example
    found: type[Any] = names["ShoutingReasoningParser"]
    return found


class TestShouting(ReasoningParserContract):
    parser = shouting()
    tags = ("!",)

    def render(self, reasoning: str, content: str) -> str:
        return f"{reasoning}!{content}"


def test_the_table_is_a_parser(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(example("toml"))
    registry = Registry([PluginSource("reasoning_parsers", str(path))])
    parser = registry.load("reasoning_parsers", "mine")(ParserContext())
    assert parser.feed("Hm.<call>f") == [Reasoning("Hm."), Content("<call>f")]


def test_the_fields_are_those_of_a_chat_request() -> None:
    for field in re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE):
        assert field in ChatRequest.model_fields
