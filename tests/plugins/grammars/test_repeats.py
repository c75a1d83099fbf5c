"""Grammars that force a text of millions of characters must not hold up the step loop."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jackfield.contracts.grammar import GrammarKind, GrammarSpec
from jackfield.errors import RequestError
from jackfield.testing.grammars import VOCABULARY
from jackfield_grammars.auto import AutoBackend
from jackfield_grammars.forced import MAX_CHARACTERS
from jackfield_grammars.guidance import GuidanceBackend, GuidanceCompiled
from jackfield_grammars.repeats import MAX_FORCED, may_force_much
from jackfield_grammars.xgrammar import XGrammarBackend, XGrammarCompiled
from jackfield_grammars.xgrammar_texts import MAX_OPTIONAL

NESTED: Any = {"type": "array", "minItems": 1000, "items": {"const": 5}}
MUCH: list[tuple[GrammarKind, Any]] = [
    ("regex", "(a{1000}){1000}"),
    ("regex", "a{" + "9" * 5000 + "}"),
    ("grammar", 'root ::= ("a"{1000}){1000}'),
    ("json_schema", {"type": "array", "minItems": 1000, "items": NESTED}),
    ("json_schema", {"type": "array", "minItems": 1e30, "items": {"const": 5}}),
    ("json_schema", {"minItems": 100, "items": {"pattern": "^(a{50}){50}$"}}),
]
UUID = "[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}"
LITTLE: list[tuple[GrammarKind, Any]] = [
    ("regex", f"{UUID},{UUID}"),
    ("regex", r"\({1000}\){1000}[{99999999}]"),
    ("regex", r"\d{3}-\d{4}"),
    ("choice", ["a{1000}{1000}"]),
    ("json_schema", {"properties": {name: {"pattern": "^a{90}$"} for name in "abcdefg"}}),
    ("json_schema", {"type": "array", "maxItems": 10**9, "minItems": 2}),
]


def spec(kind: GrammarKind, given: Any) -> GrammarSpec:
    return GrammarSpec(kind=kind, text=given if isinstance(given, str) else json.dumps(given))


@pytest.mark.parametrize(("kind", "given"), MUCH)
def test_counts_that_multiply_are_much(kind: GrammarKind, given: Any) -> None:
    assert may_force_much(spec(kind, given))


@pytest.mark.parametrize(("kind", "given"), LITTLE)
def test_counts_that_people_write_are_not(kind: GrammarKind, given: Any) -> None:
    assert not may_force_much(spec(kind, given))


def test_a_million_forced_characters_do_not_hold_up_the_loop() -> None:
    matcher = XGrammarBackend(VOCABULARY).compile(spec("regex", "(a{1000}){1000}")).matcher()
    assert matcher.jump() == []
    assert matcher.accept(VOCABULARY.tokens.index(b"a"))


def test_of_a_long_forced_text_the_beginning_is_written() -> None:
    assert MAX_CHARACTERS < MAX_FORCED
    matcher = XGrammarBackend(VOCABULARY).compile(spec("regex", f"a{{{MAX_FORCED}}}")).matcher()
    ids = matcher.jump()
    written = b"".join(VOCABULARY.tokens[each] for each in ids)
    assert MAX_CHARACTERS - 16 < len(written) <= MAX_CHARACTERS
    assert all(matcher.accept(each) for each in ids)


@pytest.mark.parametrize("part", ["a*", "a?", "(ab|c)*"])
def test_many_optional_parts_go_to_the_library_that_takes_no_time(part: str) -> None:
    most, more = spec("regex", part * MAX_OPTIONAL), spec("regex", part * (MAX_OPTIONAL + 1))
    XGrammarBackend(VOCABULARY).compile(most)
    with pytest.raises(RequestError, match="optional parts"):
        XGrammarBackend(VOCABULARY).compile(more)
    assert isinstance(AutoBackend(VOCABULARY).compile(more), GuidanceCompiled)


def test_patterns_whose_counts_multiply_go_to_the_library_that_takes_no_time() -> None:
    asked = spec("json_schema", {"type": "string", "pattern": "^(a{1000}){1000}$"})
    with pytest.raises(RequestError, match="repeats to more"):
        GuidanceBackend(VOCABULARY).compile(asked)
    GuidanceBackend(VOCABULARY).compile(spec("json_schema", {"pattern": f"^{UUID},{UUID}$"}))
    assert isinstance(AutoBackend(VOCABULARY).compile(asked), XGrammarCompiled)
