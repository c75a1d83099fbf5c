from __future__ import annotations

import pytest

from jackfield.contracts.text import Content, Event, ParserContext, Reasoning
from jackfield.testing.reasoning_parsers import ReasoningParserContract
from jackfield.text.events import merge_events
from jackfield_reasoning_parsers.qwen3 import Qwen3ReasoningParser

CHAT = "<|im_start|>assistant\n"


class TestModelOpens(ReasoningParserContract):
    parser = Qwen3ReasoningParser
    contexts = (
        ParserContext(prompt_suffix=CHAT),
        ParserContext(prompt_suffix=CHAT, template_kwargs={"enable_thinking": True}),
    )

    def render(self, reasoning: str, content: str) -> str:
        return f"<think>\n{reasoning}\n</think>\n\n{content}"


class TestTemplateOpens(ReasoningParserContract):
    parser = Qwen3ReasoningParser
    contexts = (
        ParserContext(prompt_suffix=CHAT + "<think>\n"),
        ParserContext(prompt_suffix=CHAT + "<think>"),
    )

    def render(self, reasoning: str, content: str) -> str:
        return f"{reasoning}\n</think>\n\n{content}"


@pytest.mark.parametrize(
    "context",
    [
        ParserContext(prompt_suffix=CHAT, template_kwargs={"enable_thinking": False}),
        ParserContext(prompt_suffix=CHAT + "<think>\n\n</think>\n\n"),
    ],
)
def test_without_thinking_everything_is_content(context: ParserContext) -> None:
    text = "<think>\nwell\n</think>\n\nHi."
    parser = Qwen3ReasoningParser(context)
    assert merge_events([*parser.feed(text), *parser.finish()]) == [Content(text)]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("Hi.", [Content("Hi.")]),
        ("Hi. <think>a</think>", [Content("Hi. <think>a</think>")]),
        ("\n<think>\n\n</think>\n\nHi.", [Content("Hi.")]),
        ("<think>\ncut off", [Reasoning("cut off")]),
        ("<thi", [Content("<thi")]),
        (" " * 300 + "<think>", [Content(" " * 300 + "<think>")]),
    ],
)
def test_examples(text: str, events: list[Event]) -> None:
    for pieces in ([text], list(text)):
        parser = Qwen3ReasoningParser(ParserContext(prompt_suffix=CHAT))
        said = [event for piece in pieces for event in parser.feed(piece)]
        assert merge_events([*said, *parser.finish()]) == events
