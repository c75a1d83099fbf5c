"""minLength and maxLength by xgrammar: every text is judged as jsonschema does, or the schema goes
to who can."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from jackfield.contracts.grammar import CompiledGrammar, GrammarSpec
from jackfield.errors import RequestError
from jackfield.testing.grammars import VOCABULARY
from jackfield_grammars.auto import AutoBackend
from jackfield_grammars.guidance import GuidanceMatcher
from jackfield_grammars.xgrammar import XGrammarBackend, XGrammarMatcher
from jackfield_grammars.xgrammar_ebnf import MAX_LENGTH_RULES

BACKEND = XGrammarBackend(VOCABULARY)
LIMITS: list[dict[str, int]] = [
    {"minLength": 1},
    {"minLength": 3},
    {"maxLength": 0},
    {"maxLength": 1},
    {"maxLength": 4},
    {"minLength": 2, "maxLength": 2},
    {"minLength": 1, "maxLength": 5},
]
TEXTS = [
    "",
    "a",
    "é",
    "日本",
    "ab",
    "😀b",
    'a"',
    "\\",
    "a\\b\n",
    "abcd",
    "\t\t\t\t",
    "true,",
    "abcdef",
]


def compiled(schema: Any) -> CompiledGrammar:
    return BACKEND.compile(GrammarSpec(kind="json_schema", text=json.dumps(schema)))


def takes(grammar: CompiledGrammar, text: str) -> bool:
    matcher = grammar.matcher()
    if not all(map(matcher.accept, text.encode())):
        return False
    masks = np.zeros((1, VOCABULARY.mask_words), dtype=np.int32)
    matcher.fill_bitmask(masks, 0)
    return bool(masks[0, VOCABULARY.size // 32] >> (VOCABULARY.size % 32) & 1)


@pytest.mark.parametrize("limits", LIMITS, ids=json.dumps)
def test_strings_have_as_many_characters_as_they_should(limits: dict[str, int]) -> None:
    schema = {"type": "string", **limits}
    grammar, validator = compiled(schema), Draft202012Validator(schema)
    for text in TEXTS:
        assert takes(grammar, json.dumps(text, ensure_ascii=False)) == validator.is_valid(text)
    assert not takes(grammar, '"a\tb"')


def test_lengths_stand_beside_each_other_and_beside_patterns() -> None:
    schema: Any = {
        "type": "object",
        "properties": {
            "length_0_3": {"type": "string", "maxLength": 3},
            "string_0": {"type": "string", "pattern": "^a+$"},
            "root": {"type": ["string", "null"], "minLength": 2, "maxLength": 4},
        },
        "required": ["length_0_3", "string_0", "root"],
        "additionalProperties": False,
    }
    grammar, validator = compiled(schema), Draft202012Validator(schema)
    for values in itertools.product(["", "abc", "abcd"], ["a", "b"], ["a", "aa", None, "aaaaa"]):
        value = dict(zip(schema["required"], values, strict=True))
        assert takes(grammar, json.dumps(value)) == validator.is_valid(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": MAX_LENGTH_RULES + 1},
        {"type": "string", "minLength": MAX_LENGTH_RULES + 1},
        {"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 10**6}},
    ],
)
def test_long_ones_are_refused_by_name_where_guidance_is_there_for_them(schema: Any) -> None:
    backend = XGrammarBackend(VOCABULARY, narrows_long=False)
    text = json.dumps({"type": "string", "maxLength": MAX_LENGTH_RULES})
    backend.compile(GrammarSpec(kind="json_schema", text=text))
    with pytest.raises(RequestError, match=r"(min|max)Length \d+ \(at most"):
        backend.compile(GrammarSpec(kind="json_schema", text=json.dumps(schema)))
    content = {"type": "json_schema", "json_schema": schema}
    form = {"type": "tag", "begin": "<a>", "content": content, "end": "</a>"}
    tag = json.dumps({"type": "structural_tag", "format": form})
    auto = AutoBackend(VOCABULARY)
    matcher = auto.compile(GrammarSpec(kind="structural_tag", text=tag)).matcher()
    assert isinstance(matcher, GuidanceMatcher)
    short = tag.replace(json.dumps(schema), '{"type": "string", "maxLength": 3}')
    matcher = auto.compile(GrammarSpec(kind="structural_tag", text=short)).matcher()
    assert isinstance(matcher, XGrammarMatcher)


@pytest.mark.parametrize(
    "limits",
    [{"maxLength": 50}, {"minLength": 45}, {"minLength": 3, "maxLength": 200}],
    ids=json.dumps,
)
def test_xgrammar_alone_takes_long_ones_without_escapes(limits: dict[str, int]) -> None:
    schema = {"type": "string", **limits}
    grammar, validator = compiled(schema), Draft202012Validator(schema)
    for count in (0, 2, 3, 44, 45, 50, 51, 200, 201):
        for character in "aé日":
            text = character * count
            assert takes(grammar, json.dumps(text, ensure_ascii=False)) == validator.is_valid(text)
    long = "a" * 46
    for rest in ('"b', "\\", "\n"):
        assert not takes(grammar, json.dumps(long + rest))
    assert not takes(grammar, f'"{long}\tb"')


def test_many_different_lengths_are_refused_and_those_that_share_rules_are_not() -> None:
    def schema(*limits: dict[str, int]) -> Any:
        return {"anyOf": [{"type": "string", **each} for each in limits]}

    compiled(schema(*({"maxLength": 36 + each} for each in range(5))))
    with pytest.raises(RequestError, match="different lengths"):
        compiled(schema({"minLength": 30}, {"maxLength": 30}))
