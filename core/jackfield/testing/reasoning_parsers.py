"""The laws of a reasoning parser. Subclass ``ReasoningParserContract`` in a test file::

    class TestMine(ReasoningParserContract):
        parser = MyReasoningParser

        def render(self, reasoning, content):
            return f"<think>{reasoning}</think>{content}"

``render`` writes a finished thought and an answer as the model would; ``contexts`` lists prompts
for which that is the model's output; ``tags`` are the texts that mean something to the parser. A
parser may take newlines next to its tags for a part of them: the texts that the kit generates
neither begin nor end with one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jackfield.contracts.text import (
    BoundedReasoning,
    Content,
    Event,
    ParserContext,
    Reasoning,
    ReasoningBoundary,
    ReasoningParser,
)
from jackfield.testing.text_streams import (
    CUTS,
    assert_imports_no_torch,
    assert_linear,
    split,
)
from jackfield.testing.text_streams import LAW as TEXT_LAW
from jackfield.testing.tool_parsers import assert_prefix, content_of
from jackfield.text.events import merge_events

WORDS = st.text(
    st.characters(categories=("L", "N", "P", "S", "Zs"), include_characters="\n"), max_size=60
).map(lambda text: text.strip())
# Each example is parsed in several splits and contexts.
LAW = settings(TEXT_LAW, max_examples=40)
MARKS = ("<", "</", "\n", "\n\n", " ", "a", "\u4f60")


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

    def odd(self) -> st.SearchStrategy[str]:
        """Tags, parts of tags, and what else may stand next to them, in any order."""
        parts = [tag[:at] for tag in self.tags for at in (1, len(tag) // 2, len(tag) - 1)]
        marks = [*MARKS, *parts, *(tag[1:] for tag in self.tags), *self.tags]
        return st.lists(st.sampled_from(marks), max_size=12).map("".join)

    def boundary(self, context: ParserContext) -> ReasoningBoundary | None:
        """What the parser says of where thinking ends, if it says something."""
        return self.parser.boundary(context) if issubclass(self.parser, BoundedReasoning) else None

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
    @given(st.data(), WORDS, CUTS)
    def test_any_split_gives_the_same_events(
        self, data: st.DataObject, words: str, cuts: list[float]
    ) -> None:
        odd = data.draw(self.odd())
        for context in self.contexts:
            for text in (odd + words, self.render(words + odd, odd + words), self.render(odd, "")):
                whole = self.parse(context, [text])
                assert self.parse(context, split(text, cuts)) == whole
                assert self.parse(context, list(text)) == whole

    @LAW
    @given(st.data(), WORDS, st.floats(0, 1))
    def test_cut_anywhere_nothing_said_is_unsaid(
        self, data: st.DataObject, words: str, cut: float
    ) -> None:
        odd = data.draw(self.odd())
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

    @LAW
    @given(WORDS, WORDS)
    def test_a_choice_knows_nothing_of_another(self, reasoning: str, content: str) -> None:
        text = self.render(reasoning, content)
        for context in self.contexts:
            alone = self.parse(context, [text])
            parsers = [self.parser(context), self.parser(context)]
            said: list[list[Event]] = [[], []]
            for piece in text:
                for parser, events in zip(parsers, said, strict=True):
                    events += parser.feed(piece)
            for parser, events in zip(parsers, said, strict=True):
                assert merge_events([*events, *parser.finish()]) == alone

    @LAW
    @given(WORDS, WORDS)
    def test_a_thought_ends_where_the_boundary_says(self, reasoning: str, content: str) -> None:
        """A thought that is broken off with the boundary's own words leads to the answer."""
        assume(not any(tag in reasoning + " " + content for tag in self.tags))
        expected = merge_events([Reasoning(reasoning), Content(content)])
        for context in self.contexts:
            boundary = self.boundary(context)
            if boundary is None:
                continue
            assert not boundary.answer or boundary.closing.rstrip().endswith(boundary.answer)
            start = "" if boundary.opened else boundary.start or ""
            text = start + reasoning + (boundary.closing or boundary.end) + content
            assert self.parse(context, [text]) == expected

    @LAW
    @given(WORDS)
    def test_an_output_begins_where_the_boundary_says(self, words: str) -> None:
        assume(words and not any(tag in words for tag in self.tags))
        for context in self.contexts:
            if not issubclass(self.parser, BoundedReasoning):
                continue
            boundary = self.boundary(context)
            inside = boundary is not None and boundary.opened
            assert self.parse(context, [words]) == [Reasoning(words) if inside else Content(words)]

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
