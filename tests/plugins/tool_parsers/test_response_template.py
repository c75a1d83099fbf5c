"""``hf`` against transformers' own reading of the same templates."""

# ruff: noqa: E501

from __future__ import annotations

import json
from typing import Any

import pytest

from jackfield.contracts.text import CheckpointText, Content, Event, ParserContext
from jackfield.errors import ConfigError
from jackfield.testing.tool_parsers import calls_of, content_of
from jackfield.text.events import merge_events
from jackfield_tool_parsers.response_template import HfToolParser, has_calls

Template = dict[str, Any]
FUNCTION = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}


def template(**tool_calls: Any) -> Template:
    return {
        "start_anchor": "<start>",
        "defaults": {"role": "assistant"},
        "fields": {"tool_calls": {"repeats": True, **tool_calls}, "content": {"content": "text"}},
    }


HERMES = template(
    open_pattern=r"\s*<tool_call>",
    close="</tool_call>",
    content="json",
    transform={"type": "function", "function": "{content}"},
)
XML = template(
    open_pattern=r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
    close_pattern=r"</function>\s*</tool_call>",
    content="xml-inline",
    content_args={"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"},
    transform=FUNCTION,
)
GEMMA = template(
    open_pattern=r"<\|tool_call>call:(?P<name>\w+)",
    close="<tool_call|>",
    content="json",
    content_args={"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
    transform=FUNCTION,
)
PYTHON = template(
    open=["<|calls|>", "<|more_calls|>"],
    close="<|end|>",
    content="python-call-list",
    transform={"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}},
    transform_each=True,
)
LINES = template(
    open_pattern=r"CALL (?P<name>\w+)\n",
    close="DONE",
    content="kv-lines",
    content_args={
        "kv_sep": "=",
        "value_parser": {"name": "json", "args": {"allow_non_json": True}},
    },
    transform=FUNCTION,
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "tags": {"type": "array"},
                    "exact": {"type": "boolean"},
                },
            },
        },
    }
]
CASES = [
    (HERMES, '<tool_call>\n{"name": "get_weather", "arguments": {"city": "P"}}\n</tool_call>'),
    (HERMES, 'Hi.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>\n<tool_call>{"name": "g"'
     ', "arguments": {"a": [1, null]}}</tool_call>'),
    (XML, "<tool_call>\n<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>"
     "\n3\n</parameter>\n<parameter=tags>\n[\"a\"]\n</parameter>\n</function>\n</tool_call>"),
    (XML, "<tool_call><function=other><parameter=a>1</parameter></function></tool_call>"),
    (GEMMA, '<|tool_call>call:get_weather{city:<|"|>P, "x"<|"|>,days:3,tags:[<|"|>a<|"|>]}<tool_call|>'),
    (GEMMA, "Sure. <|tool_call>call:now{}<tool_call|><|tool_call>call:now{}<tool_call|>"),
    (PYTHON, "<|calls|>[get_weather(city='P', days=3), now(a={'b': None})]<|end|>"),
    (PYTHON, "Well<|more_calls|>[now()]<|end|>"),
    (LINES, "CALL get_weather\ncity=Paris\ndays=3\nexact=true\nDONE"),
]  # fmt: skip


def parse(spec: Template, pieces: list[str]) -> list[Event]:
    context = ParserContext(tools=TOOLS, checkpoint=CheckpointText(response_template=spec))
    parser = HfToolParser(context)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merge_events([*events, *parser.finish()])


def flattened(value: Any) -> list[dict[str, Any]]:
    """The calls of a message; a list in which each region put a list of its own."""
    return [call for each in value for call in (each if isinstance(each, list) else [each])]


@pytest.mark.parametrize(("spec", "text"), CASES)
def test_calls_are_those_that_transformers_reads(spec: Template, text: str) -> None:
    chat_parsing = pytest.importorskip("transformers.utils.chat_parsing")
    message = chat_parsing.parse_response(text, spec, prefix="", tools=TOOLS)
    functions = [call["function"] for call in flattened(message["tool_calls"])]
    events = parse(spec, [text])
    assert [(call.name, call.arguments) for call in calls_of(events)] == [
        (function["name"], function["arguments"]) for function in functions
    ]
    assert content_of(events).strip() == (message.get("content") or "").strip()


@pytest.mark.parametrize(("spec", "text"), CASES)
def test_any_split_gives_the_same_events(spec: Template, text: str) -> None:
    for around in (text, f"Before. {text} after", text + text, text[:-3], text[: len(text) // 2]):
        whole = parse(spec, [around])
        assert parse(spec, list(around)) == whole
        assert parse(spec, [around[at : at + 7] for at in range(0, len(around), 7)]) == whole


@pytest.mark.parametrize(
    "text",
    [
        "Use <tool_call> tags.",
        '<tool_call>{"name": "f", "arguments"',
        "<tool_call>no json</tool_call>",
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
    ],
)
def test_what_is_no_call_is_content_unchanged(text: str) -> None:
    assert parse(HERMES, [text]) == [Content(text)]


def test_arguments_in_a_string_are_unpacked() -> None:
    arguments = json.dumps('{"a": 1}')
    events = parse(HERMES, [f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'])
    assert calls_of(events)[0].arguments == {"a": 1}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (None, "there is none with tool_calls"),
        ({"fields": {"content": {}}}, "there is none with tool_calls"),
        (template(open_pattern=r"\w+", content="json"), "does not begin with a text"),
        (template(open_pattern="<call(", content="json"), "is wrong"),
        (template(open=3, content="json"), "its open is wrong"),
        (template(content="json"), "its tool_calls have no open"),
    ],
)
def test_a_template_that_cannot_be_followed_is_named(spec: Template | None, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        HfToolParser(ParserContext(checkpoint=CheckpointText(response_template=spec)))


def test_markers_are_the_tokens_of_the_field() -> None:
    assert {"<|tool_call>", "<tool_call|>"} <= HfToolParser.markers_of(
        CheckpointText(response_template=GEMMA)
    )


def test_only_a_template_with_tool_calls_has_calls() -> None:
    assert has_calls(HERMES)
    assert not has_calls({"fields": {"content": {}}})
    assert not has_calls(None)
