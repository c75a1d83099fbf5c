"""What parsers saw is counted by what became of it, however the text is split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from jackfield.contracts.text import CheckpointText, Content, ParserContext, Reasoning
from jackfield.errors import BrokenPluginError
from jackfield.llm.parser_counts import ParserCounts, ReasoningWatch
from jackfield.llm.parsers import ParserPlugin
from jackfield.registry import Registry

TOOLS = ({"type": "function", "function": {"name": "weather", "parameters": {}}},)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def counted(kind: str, name: str, text: str, size: int) -> Mapping[str, int]:
    """The outcomes above 0 once ``text`` was fed in pieces of ``size`` and is over."""
    plugin: ParserPlugin[Any] = ParserPlugin(Registry(), kind, name)
    plugin.marker_ids(None, CheckpointText())
    parser = plugin.new(ParserContext(tools=TOOLS))
    for start in range(0, len(text), size):
        parser.feed(text[start : start + size])
    parser.finish()
    return +plugin.counts.outcomes


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "outcomes"),
    [
        ("hello", {}),
        (f"{CALL}\n{CALL}", {"complete": 2}),
        (CALL[:60], {"cut": 1}),
        (CALL.replace("weather", "wether"), {"unknown_tool": 1}),
        ("<tool_call>\nnot json\n</tool_call> well", {"malformed": 1}),
        (f"<tool_call>oh</tool_call> well {CALL} <tool_call>no", {"malformed": 2, "complete": 1}),
    ],
)
def test_calls_are_counted_by_what_became_of_them(
    text: str, outcomes: Mapping[str, int], size: int
) -> None:
    assert counted("tool_parsers", "hermes", text, size) == outcomes


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "outcomes"),
    [
        ("<think>\nhm\n</think>\n\nhello", {"complete": 1}),
        ("<think>\nhm", {"cut": 1}),
        ("hello", {}),
    ],
)
def test_thinking_is_counted_by_what_became_of_it(
    text: str, outcomes: Mapping[str, int], size: int
) -> None:
    assert counted("reasoning_parsers", "qwen3", text, size) == outcomes


def test_thinking_that_comes_again_is_one_output() -> None:
    counts = ParserCounts("reasoning_parsers", "mine")
    watch = ReasoningWatch(counts)
    watch.see([Reasoning("a"), Content("b")], at_end=False)
    watch.see([Reasoning("c"), Content("d")], at_end=True)
    assert +counts.outcomes == {"complete": 1}


def test_a_parser_that_breaks_its_contract_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin: ParserPlugin[Any] = ParserPlugin(Registry(), "tool_parsers", "hermes")
    monkeypatch.setattr(plugin.found, "feed", lambda self, text: "no list")
    with pytest.raises(BrokenPluginError):
        plugin.new(ParserContext(tools=TOOLS)).feed("a")
    assert +plugin.counts.outcomes == {"failed": 1}
