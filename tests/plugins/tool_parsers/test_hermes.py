from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from jackfield.contracts.text import (
    Content,
    Event,
    ParserContext,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from jackfield.testing.text_streams import assert_linear
from jackfield.testing.tool_parsers import Call, ToolParserContract
from jackfield.text.events import merge_events
from jackfield_tool_parsers.formats import hermes as HermesToolParser


class TestHermesWithOtherKeys(ToolParserContract):
    """``parameters`` instead of ``arguments``, before the name, among keys nobody asked for."""

    parser = HermesToolParser
    examples = 25

    def render(self, calls: Sequence[Call]) -> str:
        return "".join(
            "<tool_call>"
            + json.dumps(
                {
                    "id": [1, {"name": "x"}],
                    "parameters": call.arguments,
                    "name": call.name,
                    "z": -0.5e3,
                },
                indent=1,
            )
            + "</tool_call>"
            for call in calls
        )


def parse(text: str) -> list[Event]:
    """Fed character by character; the kit holds that any other split gives the same."""
    return parse_pieces(list(text))


def parse_pieces(pieces: Sequence[str]) -> list[Event]:
    parser = HermesToolParser(ParserContext())
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merge_events([*events, *parser.finish()])


def call(index: int, name: str, arguments: str) -> list[Event]:
    return [ToolCallStart(index, name), ToolCallArguments(index, arguments), ToolCallEnd(index)]


def test_arguments_are_the_models_own_characters() -> None:
    arguments = '{ "a":1.50,"b" : "\\u00e9\\n</tool_call>{", "c":[ ] }'
    text = f'<tool_call>\n{{"name": "f", "arguments": {arguments} }}\n</tool_call>'
    assert parse(text) == call(0, "f", arguments)


def test_arguments_stream_before_they_are_complete() -> None:
    parser = HermesToolParser(ParserContext())
    events = parser.feed('<tool_call>\n{"name": "f", "arguments": {"city": "Par')
    assert events == [ToolCallStart(0, "f"), ToolCallArguments(0, '{"city": "Par')]


@pytest.mark.parametrize(
    ("said", "completed"),
    [
        ('{"a": "x', '{"a": "x"}'),
        ('{"a": "x\\', '{"a": "x"}'),
        ('{"a": "\\ud83d', '{"a": ""}'),
        ('{"a": 1, "b', '{"a": 1}'),
        ('{"a": 1, "b": tr', '{"a": 1}'),
        ('{"a": 1, "b": -', '{"a": 1}'),
        ('{"a": 12.', '{"a": 12}'),
        ('{"a": [1, {"b": "', '{"a": [1, {"b": ""}]}'),
        ("{", "{}"),
    ],
)
def test_a_call_that_breaks_off_is_closed_without_inventing_keys(said: str, completed: str) -> None:
    assert parse(f'<tool_call>{{"name": "f", "arguments": {said}') == call(0, "f", completed)


@pytest.mark.parametrize(
    "text",
    [
        "Use <tool_call> tags.",
        '<tool_call>{"name": ',
        '<tool_call>\n{"name": "f" "arguments"}\n</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "no object"}</tool_call>',
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
        " \n <tool_call",
        "  ",
        "</tool_call>",
        '<tool_call>{"name": "f", "arguments": ' + "9" * 5000 + "}",
        '<tool_call>{"arguments": ' + '{"a":' * 400,
    ],
)
def test_what_is_no_call_is_content_unchanged(text: str) -> None:
    assert parse(text) == [Content(text)]


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"name": "f"}', "{}"),
        ('{"name": "f", "arguments": null}', "{}"),
        ('{"name": "f", "arguments": "{\\"a\\": \\"\\\\n\\"}"}', '{"a": "\\n"}'),
        ('{"name": "f", "arguments": {"code": "a\nb\tc"}}', '{"code": "a\\nb\\tc"}'),
        ('{"name": "f", "arguments": {"a": 1}', '{"a": 1}'),
    ],
)
def test_liberties_that_models_take(body: str, arguments: str) -> None:
    assert parse(f"<tool_call>\n{body}\n</tool_call>") == call(0, "f", arguments)


def test_a_call_that_goes_wrong_is_closed_and_the_rest_is_content() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"a": 1, "b" oops}}</tool_call>'
    assert parse(text) == [*call(0, "f", '{"a": 1}'), Content(', "b" oops}}</tool_call>')]


def test_a_call_behind_a_tag_without_one_is_found() -> None:
    good = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    # In the second the tag stands in a string of the first call, which then goes wrong.
    for before in ("Write <tool_call> like this: ", '<tool_call>{"a": "', "<tool_"):
        assert parse(before + good) == [Content(before), *call(0, "f", "{}")]
    assert parse("<tool_call>\n" + good) == call(0, "f", "{}")


def test_whitespace_between_calls_belongs_to_the_tags() -> None:
    one = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert parse(f"\n\n{one}\n{one}\n") == [*call(0, "f", "{}"), *call(1, "f", "{}")]
    assert parse(f"Hi.\n{one}") == [Content("Hi.\n"), *call(0, "f", "{}")]


def test_nested_broken_calls_are_read_a_few_times_at_most() -> None:
    assert_linear(parse_pieces, '<tool_call>{",":"')
