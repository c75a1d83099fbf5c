"""The laws of a tool parser. Subclass ``ToolParserContract`` in a test file::

    class TestMine(ToolParserContract):
        parser = MyToolParser

        def render(self, calls):
            return "".join(f"<f>{call.name} {json.dumps(call.arguments)}</f>" for call in calls)

``render`` writes calls as the model would; everything else is generated. A format that cannot
carry every text says so with ``arguments``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import assume
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
    assert_imports_no_torch,
    assert_linear,
    hold,
    split,
)
from jackfield.text.events import merge_events


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the model means it. ``arguments`` is a JSON object."""

    name: str
    arguments: dict[str, Any]


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        '"',
        "\\",
        "}{",
        "'a'",
        "</tool_call>",
        "<tool_call>",
        "</parameter>",
        "[1, 2]",
        "\n\t",
        "\u4f60\u597d \U0001f600",
        "null",
        "12",
    ]
)
PLAIN = st.text(
    st.characters(categories=("L", "N", "Zs"), include_characters=".,!?\n"), max_size=40
)


def arguments_of(
    keys: st.SearchStrategy[str] = KEYS | TEXT,
    text: st.SearchStrategy[str] = TEXT,
    inner_keys: st.SearchStrategy[str] | None = None,
) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments of a call: objects with these keys and any values, texts being ``text``;
    ``inner_keys`` are those of objects within."""
    scalars: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers(-(2**40), 2**40)
    scalars |= text | st.floats(allow_nan=False, allow_infinity=False, width=32)
    within = keys if inner_keys is None else inner_keys
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(within, inner, max_size=3),
        max_leaves=6,
    )
    return st.dictionaries(keys, values, max_size=4)


def without(text: st.SearchStrategy[str], *parts: str) -> st.SearchStrategy[str]:
    """The same texts, from which what a format cannot carry is taken out."""

    def cleaned(value: str) -> str:
        while found := [part for part in parts if part in value]:
            value = value.replace(found[0], "")
        return value

    return text.map(cleaned)


def schema_of(value: object) -> dict[str, object]:
    """A JSON schema that says the types of a value and of what is in it."""
    if isinstance(value, dict):
        return {
            "type": "object",
            "properties": {key: schema_of(each) for key, each in value.items()},
        }
    if isinstance(value, list):
        items = [schema_of(each) for each in value]
        return {"type": "array", "items": {"anyOf": items} if items else {}}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": "null" if value is None else kinds[type(value)]}


class ToolParserContract:
    """Laws that hold for every tool parser."""

    parser: ClassVar[type[ToolParser]]
    names: ClassVar[st.SearchStrategy[str]] = NAMES
    arguments: ClassVar[st.SearchStrategy[dict[str, Any]]] = arguments_of()
    """What the format can carry; most can carry anything."""
    plain: ClassVar[st.SearchStrategy[str]] = PLAIN
    """Text of an answer that calls nothing."""
    examples: ClassVar[int] = 80
    """How many examples of each law are tried."""

    def calls(self) -> st.SearchStrategy[list[Call]]:
        """One to three calls, of tools with different names."""
        call = st.builds(Call, self.names, self.arguments)
        return st.lists(call, min_size=1, max_size=3, unique_by=lambda each: each.name)

    def render(self, calls: Sequence[Call]) -> str:
        """The text with which a model makes these calls."""
        raise NotImplementedError("a kit's subclass says how its format is written")

    def tools(self, calls: Sequence[Call]) -> list[dict[str, object]]:
        """The request's tools, for parsers that read them: schemas with the arguments' types."""
        return [
            {
                "type": "function",
                "function": {"name": call.name, "parameters": schema_of(call.arguments)},
            }
            for call in calls
        ]

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

    def test_calls_come_out_as_they_went_in(self) -> None:
        def law(calls: list[Call], cuts: list[float]) -> None:
            events = self.parse(split(self.render(calls), cuts), calls)
            assert calls_of(events) == calls
            assert content_of(events).strip() == ""

        hold(law, self.calls(), CUTS, examples=self.examples)

    def test_text_before_calls_is_content(self) -> None:
        def law(plain: str, calls: list[Call], cuts: list[float]) -> None:
            assume(plain.strip())
            events = self.parse(split(plain + "\n" + self.render(calls), cuts), calls)
            assert calls_of(events) == calls
            assert content_of(events).rstrip() == plain.rstrip()

        hold(law, self.plain, self.calls(), CUTS, examples=self.examples)

    def test_plain_text_passes_unchanged(self) -> None:
        def law(plain: str, cuts: list[float]) -> None:
            assert self.parse(split(plain, cuts)) == ([Content(plain)] if plain else [])

        hold(law, self.plain, CUTS, examples=self.examples)

    def test_any_split_gives_the_same_events(self) -> None:
        def law(data: st.DataObject) -> None:
            calls = data.draw(self.calls())
            text = self.damaged(data, calls)
            whole = self.parse([text], calls)
            assert self.parse(split(text, data.draw(CUTS)), calls) == whole
            assert self.parse(list(text), calls) == whole
            assert_well_formed(whole)

        hold(law, st.data(), examples=self.examples)

    def test_cut_anywhere_nothing_said_is_unsaid(self) -> None:
        def law(data: st.DataObject) -> None:
            calls = data.draw(self.calls())
            text = self.damaged(data, calls)
            cut = data.draw(st.integers(0, len(text)))
            whole = self.parse([text], calls)
            parser = self.new_parser(calls)
            said = list(parser.feed(text[:cut]))
            assert_prefix(merge_events(said), whole)
            assert_well_formed(merge_events([*said, *parser.finish()]))

        hold(law, st.data(), examples=self.examples)

    def test_brackets_without_end_raise_nothing(self) -> None:
        """A model that is caught in a loop writes them until its context ends."""
        calls = [Call("f", {"a": "DEEP"})]
        for bracket in ("[", '{"a":'):
            text = self.render(calls).replace('"DEEP"', "DEEP").replace("DEEP", bracket * 50_000)
            assert_well_formed(self.parse([text], calls))

    def test_a_choice_knows_nothing_of_another(self) -> None:
        def law(calls: list[Call]) -> None:
            text = self.render(calls)
            alone = self.parse([text], calls)
            parsers = [self.new_parser(calls), self.new_parser(calls)]
            said: list[list[Event]] = [[], []]
            for piece in text:
                for parser, events in zip(parsers, said, strict=True):
                    events += parser.feed(piece)
            for parser, events in zip(parsers, said, strict=True):
                assert merge_events([*events, *parser.finish()]) == alone

        hold(law, self.calls(), examples=max(1, self.examples // 4))

    def test_cost_is_linear(self) -> None:
        long = Call("f", {"text": "words and words " * 4, "list": [1, {"a": "b"}]})
        text = self.render([long])
        for unit in ("plain words. ", text, text[:7], text[: len(text) // 2], "<", "{", " "):
            assert_linear(lambda pieces: self.parse(pieces, [long]), unit)
        text = self.render([Call("f", {"x": "MARK"})])
        head, tail = text.split("MARK")
        assert_linear(lambda pieces: self.parse([head, *pieces, tail]), 'word \\" }')

    # --- damage ------------------------------------------------------------------------

    def damaged(self, data: st.DataObject, calls: Sequence[Call]) -> str:
        """Text around calls, with parts of it left out, doubled or replaced."""
        text = data.draw(self.plain) + "\n" + self.render(calls)
        text += data.draw(self.plain) + self.render(calls[:1])
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
    ids: list[str] = []
    for event in events:
        if isinstance(event, ToolCallStart):
            assert open_call is None and event.index == num_calls and event.name
            assert not event.id or event.id not in ids, "two calls have one id"
            ids.append(event.id)
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
