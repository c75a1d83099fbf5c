from __future__ import annotations

import pytest

from jackfield.contracts.text import Content, Event, ParserContext, Reasoning
from jackfield.testing.reasoning_parsers import ReasoningParserContract
from jackfield.text.events import merge_events
from jackfield_reasoning_parsers.deepseek_r1 import DeepSeekR1ReasoningParser


class TestStartTagInTheOutput(ReasoningParserContract):
    parser = DeepSeekR1ReasoningParser
    contexts = (ParserContext(), ParserContext(prompt_suffix="<|Assistant|>"))

    def render(self, reasoning: str, content: str) -> str:
        return f"<think>\n{reasoning}\n</think>\n\n{content}"


class TestStartTagInThePrompt(ReasoningParserContract):
    parser = DeepSeekR1ReasoningParser
    contexts = (ParserContext(prompt_suffix="<|Assistant|><think>\n"), ParserContext())

    def render(self, reasoning: str, content: str) -> str:
        return f"{reasoning}\n</think>\n\n{content}"


def parse(context: ParserContext, text: str) -> list[Event]:
    parser = DeepSeekR1ReasoningParser(context)
    return merge_events([*parser.feed(text), *parser.finish()])


@pytest.mark.parametrize(
    ("suffix", "text", "events"),
    [
        ("", "no end tag", [Reasoning("no end tag")]),
        ("<think>\n\n</think>\n\n", "Hi.", [Content("Hi.")]),
        ("", "a</think>b</think>c", [Reasoning("a"), Content("b</think>c")]),
        ("", "  <think>a</think>b", [Reasoning("a"), Content("b")]),
        ("old </think> answer<|Assistant|>", "a</think>b", [Reasoning("a"), Content("b")]),
        ("", "<think>a</thin", [Reasoning("a</thin")]),
    ],
)
def test_examples(suffix: str, text: str, events: list[Event]) -> None:
    assert parse(ParserContext(prompt_suffix=suffix), text) == events
