"""The laws of a tool parser. Subclass ``ToolParserContract`` in a test file::

    class TestMine(ToolParserContract):
        parser = MyToolParser

        def render(self, calls):
            return "".join(f"<f>{call.name} {json.dumps(call.arguments)}</f>" for call in calls)

``render`` writes calls as the model would; everything else is generated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import assume, given
from hypothesis import strategies as st

from jackfield.contracts.text import (
    Content,
    Event,
    ParserContext,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    ToolParser,
)
from jackfield.testing.text_streams import (
    CUTS,
    LAW,
    assert_imports_no_torch,
    assert_linear,
    split,
)
from jackfield.text.events import merge_events


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the model means it. ``arguments`` is a JSON object."""

    name: str
    arguments: dict[str, Any]


TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        '"',
        "\\",
        "}{",
        "</tool_call>",
        "<tool_call>",
        "[1, 2]",
        "\n\t",
        "\u4f60\u597d \U0001f600",
        "null",
    ]
)
SCALARS: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT
SCALARS |= st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
ARGUMENTS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True) | TEXT, VALUES, max_size=4
)
CALLS = st.lists(
    st.builds(Call, st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True), ARGUMENTS),
    min_size=1,
    max_size=3,
)
PLAIN = st.text(
    st.characters(categories=("L", "N", "Zs"), include_characters=".,!?\n"), max_size=40
)


class ToolParserContract:
    """Laws that hold for every tool parser."""

    parser: ClassVar[type[ToolParser]]

    def render(self, calls: Sequence[Call]) -> str:
        """The text with which a model makes these calls."""
        raise NotImplementedError("a kit's subclass says how its format is written")

    def tools(self, calls: Sequence[Call]) -> list[dict[str, object]]:
        """The request's tools, for parsers that read them."""
        names = dict.fromkeys(call.name for call in calls)
        return [{"type": "function", "function": {"name": name}} for name in names]

    def new_parser(self, calls: Sequence[Call] = ()) -> ToolParser:
        """A parser for one choice."""
        return self.parser(ParserContext(tools=self.tools(calls)))

    def parse(self, pieces: Sequence[str], calls: Sequence[Call] = ()) -> list[Event]:
        """The merged events of a whole text."""
        parser = self.new_parser(calls)
        events = [event for piece in pieces for event in parser.feed(piece)]
        return merge_events([*events, *parser.finish()])

    # --- laws --------------------------------------------------------------------------

    def test_names_itself_and_its_contract(self) -> None:
        assert re.fullmatch(r"[a-z0-9_]+", self.parser.name)
        assert isinstance(self.parser.api_version, int)

    def test_does_not_import_torch(self) -> None:
        assert_imports_no_torch(self.parser.__module__)

    @LAW
    @given(CALLS, CUTS)
    def test_calls_come_out_as_they_went_in(self, calls: list[Call], cuts: list[float]) -> None:
        events = self.parse(split(self.render(calls), cuts), calls)
        assert calls_of(events) == calls
        assert content_of(events).strip() == ""

    @LAW
    @given(PLAIN, CALLS, CUTS)
    def test_text_before_calls_is_content(
        self, plain: str, calls: list[Call], cuts: list[float]
    ) -> None:
        assume(plain.strip())
        events = self.parse(split(plain + "\n" + self.render(calls), cuts), calls)
        assert calls_of(events) == calls
        assert content_of(events).rstrip() == plain.rstrip()

    @LAW
    @given(PLAIN, CUTS)
    def test_plain_text_passes_unchanged(self, plain: str, cuts: list[float]) -> None:
        assert self.parse(split(plain, cuts)) == ([Content(plain)] if plain else [])

    @LAW
    @given(st.data())
    def test_any_split_gives_the_same_events(self, data: st.DataObject) -> None:
        calls = data.draw(CALLS)
        text = self.damaged(data, calls)
        whole = self.parse([text], calls)
        assert self.parse(split(text, data.draw(CUTS)), calls) == whole
        assert self.parse(list(text), calls) == whole
        assert_well_formed(whole)

    @LAW
    @given(st.data())
    def test_cut_anywhere_nothing_said_is_unsaid(self, data: st.DataObject) -> None:
        calls = data.draw(CALLS)
        text = self.damaged(data, calls)
        cut = data.draw(st.integers(0, len(text)))
        whole = self.parse([text], calls)
        parser = self.new_parser(calls)
        said = list(parser.feed(text[:cut]))
        assert_prefix(merge_events(said), whole)
        assert_well_formed(merge_events([*said, *parser.finish()]))

    def test_cost_is_linear(self) -> None:
        long = Call("f", {"text": "words and words " * 4, "list": [1, {"a": "b"}]})
        for unit in ("plain words. ", self.render([long]), self.render([long])[:7], "<", "{", " "):
            assert_linear(self.parse, unit)
        assert_linear(
            lambda pieces: self.parse([self.render([Call("f", {"x": "".join(pieces)})])]), "ab "
        )
        text = self.render([Call("f", {"x": "MARK"})])
        head, tail = text.split("MARK")
        assert_linear(lambda pieces: self.parse([head, *pieces, tail]), 'word \\" }')

    # --- damage ------------------------------------------------------------------------

    def damaged(self, data: st.DataObject, calls: Sequence[Call]) -> str:
        """Text around calls, with parts of it left out, doubled or replaced."""
        text = data.draw(PLAIN) + self.render(calls) + data.draw(PLAIN) + self.render(calls[:1])
        for _ in range(data.draw(st.integers(0, 3))):
            begin = data.draw(st.integers(0, len(text)))
            end = data.draw(st.integers(begin, min(len(text), begin + 20)))
            middle = data.draw(
                st.sampled_from(["", text[begin:end] * 2, "<", "{", '"', "\\", "\n"])
            )
            text = text[:begin] + middle + text[end:]
        return text


def content_of(events: Sequence[Event]) -> str:
    """All content, joined."""
    return "".join(event.text for event in events if isinstance(event, Content))


def calls_of(events: Sequence[Event]) -> list[Call]:
    """The calls, their arguments parsed."""
    names = [event.name for event in events if isinstance(event, ToolCallStart)]
    arguments = [""] * len(names)
    for event in events:
        if isinstance(event, ToolCallArguments):
            arguments[event.index] += event.fragment
    return [Call(name, json.loads(text)) for name, text in zip(names, arguments, strict=True)]


def assert_well_formed(events: Sequence[Event]) -> None:
    """Calls start, go on and end one after another, rising from 0, with valid arguments."""
    open_call: int | None = None
    num_calls = 0
    arguments = ""
    for event in events:
        if isinstance(event, ToolCallStart):
            assert open_call is None and event.index == num_calls and event.name
            open_call, num_calls, arguments = event.index, num_calls + 1, ""
        elif isinstance(event, ToolCallArguments):
            assert event.index == open_call
            arguments += event.fragment
        elif isinstance(event, ToolCallEnd):
            assert event.index == open_call
            assert isinstance(json.loads(arguments), dict), arguments
            open_call = None
    assert open_call is None, "a call was not ended"


def assert_prefix(said: Sequence[Event], whole: Sequence[Event]) -> None:
    """The events said so far are the beginning of all events; the last one may be a part."""
    for index, event in enumerate(said):
        assert index < len(whole), f"{event} was said and is not in {whole}"
        full = whole[index]
        if event == full:
            continue
        assert index == len(said) - 1 and type(event) is type(full), (event, full)
        if isinstance(event, Content) and isinstance(full, Content):
            assert full.text.startswith(event.text)
        elif isinstance(event, ToolCallArguments) and isinstance(full, ToolCallArguments):
            assert event.index == full.index and full.fragment.startswith(event.fragment)
        else:
            raise AssertionError(f"{event} became {full}")
