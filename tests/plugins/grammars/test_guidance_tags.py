"""Structural tags by llguidance: what it writes for tool calls is read by xgrammar, and back."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from jackfield.contracts.grammar import GrammarBackend, GrammarMatcher, GrammarSpec, Vocabulary
from jackfield.errors import RequestError
from jackfield_grammars.auto import AutoBackend
from jackfield_grammars.guidance import GuidanceBackend, GuidanceCompiled
from jackfield_grammars.xgrammar import XGrammarBackend

SPECIAL = {"<|call|>": 256, "<|end|>": 257}
VOCABULARY = Vocabulary((*(bytes((byte,)) for byte in range(256)), b"", b""), SPECIAL)
GUIDANCE, XGRAMMAR = GuidanceBackend(VOCABULARY), XGrammarBackend(VOCABULARY)

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a"],
    "additionalProperties": False,
}
JSON = {"type": "json_schema", "json_schema": SCHEMA}


def text(value: str) -> dict[str, Any]:
    return {"type": "const_string", "value": value}


def tag(begin: str, content: Mapping[str, Any], end: str) -> dict[str, Any]:
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def triggered(begin: str, end: str, **others: bool) -> dict[str, Any]:
    tags = [tag(f'{begin}{{"name": "{name}", "p": ', JSON, f"}}{end}") for name in ("f", "get")]
    return {"type": "triggered_tags", "triggers": [begin], "tags": tags, **others}


FORMATS: dict[str, dict[str, Any]] = {
    "triggered": triggered("<tool>", "</tool>"),
    "once": triggered("<tool>", "</tool>", stop_after_first=True),
    "needed": triggered("<tool>", "</tool>", at_least_one=True),
    "special": triggered("<|call|>", "<|end|>"),
    "sequence": {
        "type": "sequence",
        "elements": [
            tag("<a>", {"type": "any_text"}, ">"),
            {"type": "optional", "content": text("\n/")},
            {"type": "or", "elements": [JSON, {"type": "regex", "pattern": "[0-9]/[0-9]"}]},
            {"type": "star", "content": text("!")},
        ],
    },
    "separated": {
        "type": "tags_with_separator",
        "tags": [tag("[", JSON, "]"), tag("(", {"type": "regex", "pattern": "[a-c]+"}, ")")],
        "separator": ", ",
        "at_least_one": True,
    },
}


def matcher(backend: GrammarBackend, form: Mapping[str, Any]) -> GrammarMatcher:
    spec = {"type": "structural_tag", "format": form}
    return backend.compile(GrammarSpec(kind="structural_tag", text=json.dumps(spec))).matcher()


def bits(made: GrammarMatcher) -> list[int]:
    masks = np.zeros((1, VOCABULARY.mask_words), dtype=np.int32)
    made.fill_bitmask(masks, 0)
    found: list[int] = np.flatnonzero(
        np.unpackbits(masks.view(np.uint8), bitorder="little")
    ).tolist()
    return found


def written(made: GrammarMatcher, chance: random.Random) -> list[int] | None:
    """Random ids up to an end; those that lead on are preferred."""
    ids: list[int] = []
    likely = [*b'<>/{}[]()",:tolcgefanp0123x \n', *SPECIAL.values()]
    for _ in range(160):
        allowed = bits(made)
        if VOCABULARY.size in allowed and (len(allowed) == 1 or chance.random() < 0.15):
            return ids
        some = [each for each in allowed if each in likely] or allowed
        some = [each for each in some if each != VOCABULARY.size]
        ids.append(chance.choice(some))
        assert made.accept(ids[-1])
    return None


@pytest.mark.parametrize("name", FORMATS)
def test_each_backend_takes_what_the_other_writes(name: str) -> None:
    chance, num_written = random.Random(name), 0
    ways: list[tuple[GrammarBackend, GrammarBackend]] = [(GUIDANCE, XGRAMMAR), (XGRAMMAR, GUIDANCE)]
    # xgrammar lets the special tokens of a tag come in free text too.
    for writer, reader in ways[:1] if name == "special" else ways:
        for _ in range(25):
            ids = written(matcher(writer, FORMATS[name]), chance)
            if ids is None:
                continue
            num_written += 1
            reading = matcher(reader, FORMATS[name])
            for place, each in enumerate(ids):
                assert each in bits(reading), (writer.name, ids[:place], each)
                assert reading.accept(each)
            assert VOCABULARY.size in bits(reading), (writer.name, bytes(i % 256 for i in ids))
    assert num_written > 10


CALL = '<tool>{"name": "get", "p": {"a": 1}}</tool>'


@pytest.mark.parametrize(
    ("name", "output", "is_whole"),
    [
        ("triggered", "hello <too", True),
        ("triggered", f"say {CALL} and {CALL}.", True),
        ("triggered", '<tool>{"name": "other', None),
        ("triggered", '<tool>{"name": "f", "p": {"b"', None),
        ("once", CALL, True),
        ("once", f"{CALL}x", None),
        ("needed", "hello", False),
        ("needed", f"{CALL}x", True),
        ("sequence", "<a>b<b>7/8!!", True),
        ("sequence", '<a>>\n/{"a": 2}', True),
        ("separated", '[{"a": 2}], (abc), (c)', True),
        ("separated", "(abc)(c)", None),
    ],
)
def test_outputs_are_allowed(name: str, output: str, is_whole: bool | None) -> None:
    """``is_whole``: whether the output may end; None where it is not allowed."""
    made = matcher(GUIDANCE, FORMATS[name])
    for byte in output.encode():
        if byte not in bits(made):
            assert is_whole is None, output
            return
        assert made.accept(byte)
    assert (VOCABULARY.size in bits(made)) == is_whole


def test_auto_takes_guidance_for_a_tag_whose_schema_xgrammar_lacks() -> None:
    schema = {**SCHEMA, "properties": {"a": {"type": "integer", "multipleOf": 7}}}
    form = triggered("<tool>", "</tool>")
    form["tags"][0]["content"] = {"type": "json_schema", "json_schema": schema}
    spec = json.dumps({"type": "structural_tag", "format": form})
    compiled = AutoBackend(VOCABULARY).compile(GrammarSpec(kind="structural_tag", text=spec))
    assert isinstance(compiled, GuidanceCompiled)
    made, validator = compiled.matcher(), Draft202012Validator(schema)
    begin = '<tool>{"name": "f", "p": '
    assert all(map(made.accept, begin.encode()))
    found = {text for n in range(30) if allows(made, text := json.dumps({"a": n}) + "}</tool>")}
    assert found == {
        json.dumps({"a": n}) + "}</tool>" for n in range(30) if validator.is_valid({"a": n})
    }


def allows(made: GrammarMatcher, output: str) -> bool:
    count = 0
    for byte in output.encode():
        if not made.accept(byte):
            break
        count += 1
    made.rollback(count)
    return count == len(output)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "any_text", "excludes": ["a"]},
        {"type": "token", "token": 5},
        {**JSON, "style": "qwen_xml"},
        {"type": "json_schema", "json_schema": {"type": "array", "uniqueItems": True}},
        triggered("<tool>", "</tool>") | {"triggers": ["<other>"]},
        {"type": "sequence"},
    ],
)
def test_what_guidance_cannot_do_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        matcher(GUIDANCE, form)
