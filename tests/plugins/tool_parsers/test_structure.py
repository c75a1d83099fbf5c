"""The grammars: they take what the families write and nothing else, and the parsers read what
they let through. xgrammar over a vocabulary of bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import torch
import xgrammar
from tests.plugins.tool_parsers import renderers
from tests.plugins.tool_parsers.renderers import FAMILIES

from jackfield.contracts.text import Content, ParserContext
from jackfield.testing.tool_parsers import Call, calls_of
from jackfield.text.events import merge_events
from jackfield_tool_parsers import formats
from jackfield_tool_parsers.markers import SUFFIX

END = 256
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "max-age": {"type": "integer"},
        "place": {
            "type": "object",
            "properties": {"tags": {"type": "array", "items": {"type": "string"}}},
            "required": ["tags"],
            "additionalProperties": False,
        },
        "unit": {"type": "string", "enum": ["c", "f"]},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
SCHEMAS = {"get_weather": WEATHER, "now": NOTHING}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
PARIS = Call("get_weather", {"city": "Paris", "days": 3, "place": {"tags": ["a"]}, "unit": "c"})
NOW = Call("now", {})
WRONG = Call("get_weather", {"city": "Paris", "days": "three"})
# These renderers show what a parser reads beside what a grammar writes: another suffix, a header.
WRITTEN_OTHERWISE = {"hy_v4", "llama4_json", "llama4_pythonic", "inkling", "minicpm5"}
NAMES = [name for name in FAMILIES if name not in WRITTEN_OTHERWISE]


@cache
def compiler() -> xgrammar.GrammarCompiler:
    info = xgrammar.TokenizerInfo(
        [bytes([byte]) for byte in range(END)] + [b"</s>"],
        vocab_type=xgrammar.VocabType.RAW,
        vocab_size=END + 1,
        stop_token_ids=[END],
    )
    return xgrammar.GrammarCompiler(info, max_threads=1)


def matcher(name: str, choice: str, parallel: bool = True) -> xgrammar.GrammarMatcher:
    tag = structure(name, choice, parallel)
    return xgrammar.GrammarMatcher(compiler().compile_structural_tag(json.dumps(tag)))


def structure(name: str, choice: str, parallel: bool = True) -> Mapping[str, object]:
    found = getattr(formats, name).structure(TOOLS, choice, parallel=parallel)
    assert found is not None
    return dict(found)


def takes(name: str, choice: str, text: str, parallel: bool = True) -> bool:
    made = matcher(name, choice, parallel)
    return bool(made.accept_string(text) and made.accept_token(END))


def write(name: str, calls: Sequence[Call], monkeypatch: pytest.MonkeyPatch) -> str:
    # A grammar writes the values of keyword arguments as JSON.
    monkeypatch.setattr(renderers, "literal", json.dumps)
    return FAMILIES[name].render(calls).strip()


@pytest.mark.parametrize("name", NAMES)
def test_calls_as_the_family_writes_them_are_taken_and_others_are_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paris, now, wrong = (write(name, [call], monkeypatch) for call in (PARIS, NOW, WRONG))
    both = write(name, [PARIS, NOW], monkeypatch)
    assert takes(name, "required", paris)
    assert takes(name, "required", both)
    assert not takes(name, "required", both, parallel=False)
    assert takes(name, "required", now, parallel=False)
    assert not takes(name, "required", wrong)
    assert not takes(name, "required", "")
    assert not takes(name, "required", "Hello")
    assert takes(name, "get_weather", paris)
    assert not takes(name, "get_weather", now)
    assert not takes(name, "get_weather", both)


@pytest.mark.parametrize("name", NAMES)
def test_with_auto_any_text_is_taken_and_calls_in_it_are_held_to_their_schemas(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = write(name, [PARIS, NOW], monkeypatch)
    assert takes(name, "auto", "Hello, it is 3 < 4 [yes].")
    assert takes(name, "auto", "Well, " + both)
    assert not takes(name, "auto", "Well, " + write(name, [WRONG], monkeypatch))


@pytest.mark.parametrize("name", [*NAMES, *sorted(WRITTEN_OTHERWISE - {"hy_v4"})])
@pytest.mark.parametrize("choice", ["required", "get_weather"])
def test_whatever_the_grammar_lets_through_is_read_as_valid_calls(name: str, choice: str) -> None:
    for seed in range(3):
        text = walk(matcher(name, choice), random.Random(seed), closers(name))
        parser = getattr(formats, name)(ParserContext(tools=TOOLS))
        events = merge_events([*parser.feed(text), *parser.finish()])
        assert not [event for event in events if isinstance(event, Content)], text
        calls = calls_of(events)
        assert calls and (choice == "required" or [call.name for call in calls] == [choice]), text
        for call in calls:
            jsonschema.validate(call.arguments, SCHEMAS[call.name])


def walk(
    made: xgrammar.GrammarMatcher, rng: random.Random, closers: Sequence[str], limit: int = 8000
) -> str:
    """Bytes at random, as a model with random weights would choose them, but with a liking for
    what ends strings and objects, so that the text comes to its end."""
    mask = xgrammar.allocate_token_bitmask(1, END + 1)
    text = bytearray()
    while not made.is_terminated():
        assert len(text) < limit, bytes(text)
        if rng.random() < 0.1:
            for closer in closers:
                if made.accept_string(closer):
                    text += closer.encode()
        made.fill_next_token_bitmask(mask)
        allowed = allowed_of(mask)
        if END in allowed and (rng.random() < 0.5 or len(allowed) == 1):
            made.accept_token(END)
            continue
        choices = [byte for byte in allowed if byte != END]
        liked = [byte for byte in choices if byte in b'"}])>,']
        byte = rng.choice(liked if liked and rng.random() < 0.5 else choices)
        assert made.accept_token(byte)
        text.append(byte)
    return text.decode("utf-8", "replace")  # as detokenizers do


def allowed_of(mask: torch.Tensor) -> list[int]:
    words = [word & 0xFFFFFFFF for word in mask[0].tolist()]
    return [bit for bit in range(END + 1) if words[bit >> 5] >> (bit & 31) & 1]


def closers(name: str) -> list[str]:
    """What ends a text in the format."""
    made = formats.all_formats().get(name) or getattr(formats, name).format
    namespace = [made.namespace + "</"] if made.namespace else []
    ends = [each.replace(SUFFIX, "") for each in made.value_end]
    return [*ends, *made.delimiters, *namespace]


def test_a_schema_that_a_format_cannot_be_held_to_is_not_forced() -> None:
    loop = {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": loop}}]
    for name in ("pythonic", "gemma4", "muse_glimmer"):
        assert getattr(formats, name).structure(tools, "required") is None
    loop["properties"] = {"a:b": {"type": "integer"}}
    assert formats.pythonic.structure(tools, "required") is None
    assert formats.gemma4.structure(tools, "required") is None


def test_a_tool_that_is_called_like_a_choice_is_forced_by_giving_it_alone() -> None:
    tools = [{"type": "function", "function": {"name": "auto"}}]
    found = formats.hermes.structure(tools, "required", parallel=False)
    grammar = compiler().compile_structural_tag(json.dumps(found))
    made = xgrammar.GrammarMatcher(grammar)
    assert made.accept_string(
        '<tool_call>\n{"name": "auto", "arguments": {"any": [1]}}\n</tool_call>'
    )
