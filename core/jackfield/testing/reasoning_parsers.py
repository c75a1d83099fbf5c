"""The laws of a reasoning parser. Subclass ``ReasoningParserContract`` in a test file::

    class TestMine(ReasoningParserContract):
        parser = MyReasoningParser

        def render(self, reasoning, content):
            return f"<think>{reasoning}</think>{content}"

``render`` writes a finished thought and an answer as the model would; ``contexts`` lists prompts
for which that is the model's output. A parser may take newlines next to its tags for a part of
them: the texts that the kit generates neither begin nor end with one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from hypothesis import assume, given
from hypothesis import strategies as st

from jackfield.contracts.text import Content, Event, ParserContext, Reasoning, ReasoningParser
from jackfield.testing.text_streams import (
    CUTS,
    LAW,
    assert_imports_no_torch,
    assert_linear,
    split,
)
from jackfield.testing.tool_parsers import assert_prefix, content_of
from jackfield.text.events import merge_events

WORDS = st.text(
    st.characters(categories=("L", "N", "P", "S", "Zs"), include_characters="\n"), max_size=60
).map(lambda text: text.strip())
MARKS = st.sampled_from(["<", "</", "<th", "\n", "\n\n", "</thin", " ", "a", "\u4f60"])
ODD = st.lists(MARKS, max_size=12).map("".join)


class ReasoningParserContract:
    """Laws that hold for every reasoning parser."""

    parser: ClassVar[type[ReasoningParser]]
    contexts: ClassVar[Sequence[ParserContext]] = (ParserContext(),)
    tags: ClassVar[Sequence[str]] = ("<think>", "</think>")
    """What the generated thoughts and answers must not contain."""

    def render(self, reasoning: str, content: str) -> str:
        """The text of a model that thought and then answered."""
        raise NotImplementedError("a kit's subclass says how its format is written")

    def parse(self, context: ParserContext, pieces: Sequence[str]) -> list[Event]:
        """The merged events of a whole text."""
        parser = self.parser(context)
        events: list[Event] = [event for piece in pieces for event in parser.feed(piece)]
        return merge_events([*events, *parser.finish()])

    # --- laws --------------------------------------------------------------------------

    def test_names_itself_and_its_contract(self) -> None:
        assert re.fullmatch(r"[a-z0-9_]+", self.parser.name)
        assert isinstance(self.parser.api_version, int)

    def test_does_not_import_torch(self) -> None:
        assert_imports_no_torch(self.parser.__module__)

    @LAW
    @given(WORDS, WORDS, CUTS)
    def test_thought_and_answer_come_apart(
        self, reasoning: str, content: str, cuts: list[float]
    ) -> None:
        assume(not any(tag in reasoning + " " + content for tag in self.tags))
        expected = merge_events([Reasoning(reasoning), Content(content)])
        for context in self.contexts:
            pieces = split(self.render(reasoning, content), cuts)
            assert self.parse(context, pieces) == expected

    @LAW
    @given(WORDS, ODD, CUTS)
    def test_any_split_gives_the_same_events(self, words: str, odd: str, cuts: list[float]) -> None:
        for context in self.contexts:
            for text in (odd + words, self.render(words + odd, odd + words), self.render(odd, "")):
                whole = self.parse(context, [text])
                assert self.parse(context, split(text, cuts)) == whole
                assert self.parse(context, list(text)) == whole

    @LAW
    @given(WORDS, ODD, st.floats(0, 1))
    def test_cut_anywhere_nothing_said_is_unsaid(self, words: str, odd: str, cut: float) -> None:
        for context in self.contexts:
            text = self.render(words + odd, odd + words)
            parser = self.parser(context)
            said: list[Event] = list(parser.feed(text[: round(cut * len(text))]))
            assert_said(merge_events(said), self.parse(context, [text]))
            parser.finish()

    @LAW
    @given(WORDS, CUTS)
    def test_no_text_is_lost(self, words: str, cuts: list[float]) -> None:
        """Where no tag is, reasoning and content together are the text."""
        assume(not any(tag in words for tag in self.tags))
        for context in self.contexts:
            events = self.parse(context, split(words, cuts))
            assert content_of(events) + reasoning_of(events) == words

    def test_cost_is_linear(self) -> None:
        for context in self.contexts:
            for unit in ("words and words ", self.render("a thought", "an answer"), "<", "\n", " "):
                assert_linear(lambda pieces, context=context: self.parse(context, pieces), unit)  # type: ignore[misc]


def reasoning_of(events: Sequence[Event]) -> str:
    """All reasoning, joined."""
    return "".join(event.text for event in events if isinstance(event, Reasoning))


def assert_said(said: Sequence[Event], whole: Sequence[Event]) -> None:
    """The events said so far are the beginning of all events."""
    if said and isinstance(said[-1], Reasoning):
        last = whole[len(said) - 1]
        assert isinstance(last, Reasoning) and last.text.startswith(said[-1].text)
        said = said[:-1]
    assert_prefix(said, whole)
