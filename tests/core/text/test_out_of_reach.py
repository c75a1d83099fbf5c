"""Bounds that no answer comes to: whatever an answer can be is judged as before."""

from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from jackfield.contracts.grammar import GrammarKind, GrammarSpec
from jackfield.errors import RequestError
from jackfield.text.out_of_reach import within_reach

MAX_BYTES = 100


def spec(text: object, kind: GrammarKind = "json_schema") -> GrammarSpec:
    return GrammarSpec(kind=kind, text=text if isinstance(text, str) else json.dumps(text))


def reached(schema: object) -> Any:
    return json.loads(within_reach(spec(schema), MAX_BYTES).text)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"maxLength": 100}, {}),
        ({"maxLength": 99}, {"maxLength": 99}),
        ({"maxLength": 1e9, "minLength": 3}, {"minLength": 3}),
        ({"maxItems": 50, "maxProperties": 20, "maxContains": 50}, {}),
        (
            {"maxItems": 49, "maxProperties": 19, "contains": True, "maxContains": 49},
            {"maxItems": 49, "maxProperties": 19, "contains": True, "maxContains": 49},
        ),
        ({"items": {"not": {"maxLength": 10**30}}}, {"items": {"not": {}}}),
        ({"pattern": "^a{2,500}b{1,9}$"}, {"pattern": "^a{2,}b{1,9}$"}),
    ],
)
def test_upper_bounds_beyond_reach_are_left_out(given: Any, kept: Any) -> None:
    assert reached(given) == kept


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"maxLength": {"const": 1000}, "minItems": {"type": "integer"}}},
        {"const": {"maxLength": 1000, "minLength": 1000}},
        {"enum": [{"minItems": 1000}], "default": {"maxItems": 1000}},
        {"maximum": 1000, "minimum": 999},
        {"maxLength": True},
        {"pattern": r"[{1,1000}]\{1,1000}"},
        {"patternProperties": {"a{1,1000}": {"type": "null"}}},
    ],
)
def test_what_is_no_bound_stays(schema: Any) -> None:
    given = spec(schema)
    assert within_reach(given, MAX_BYTES) is given


@pytest.mark.parametrize(
    ("keyword", "most"),
    [("minLength", 100), ("minItems", 50), ("minContains", 50), ("minProperties", 20)],
)
def test_a_lower_bound_beyond_reach_is_refused_by_name(keyword: str, most: int) -> None:
    reached({"contains": True, keyword: most})
    with pytest.raises(RequestError, match=f"{keyword} {most + 1} is more than any answer"):
        reached({"properties": {"a": {"contains": True, keyword: most + 1}}})


def test_schemas_and_regexes_in_tags_are_brought_within_reach() -> None:
    def tag(limit: str, upper: dict[str, int]) -> dict[str, Any]:
        name = {"type": "regex", "pattern": f"x{{1,{limit}}}"}
        call = {"type": "json_schema", "json_schema": {"type": "string", **upper}}
        form = {"type": "sequence", "elements": [name, call]}
        return {"type": "structural_tag", "format": form}

    given = spec(tag("1000", {"maxLength": 1000}), "structural_tag")
    assert json.loads(within_reach(given, MAX_BYTES).text) == tag("", {})


PATTERNS = ["(ab|c){1,1000}d?", "[ab]{2,200}", "(a?b{0,300}){1,3}c{1,4}", r"\{a{0,100}"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_regex_matches_the_same_texts_of_the_length_of_an_answer(pattern: str) -> None:
    other = within_reach(spec(pattern, "regex"), MAX_BYTES).text
    assert other != pattern
    chance = random.Random(pattern)
    letters = "".join(re.findall("[a-d{]", pattern))
    for _ in range(400):
        text = "".join(chance.choice(letters) for _ in range(chance.choice((3, 8, MAX_BYTES))))
        assert bool(re.fullmatch(pattern, text)) == bool(re.fullmatch(other, text))
    for piece in "abcd":
        text = piece * MAX_BYTES
        assert bool(re.fullmatch(pattern, text)) == bool(re.fullmatch(other, text))


@pytest.mark.parametrize("piece", ["[", r"[\\", "{1", "{1,1", "[[]{1,9"])
def test_a_regex_of_any_kind_costs_what_its_length_does(piece: str) -> None:
    pattern = (piece * 65536)[:65536]
    began = time.thread_time()
    assert within_reach(spec(pattern, "regex"), MAX_BYTES).text == pattern
    assert time.thread_time() - began < 2.0


def test_every_value_that_fits_into_an_answer_is_judged_as_before() -> None:
    chance = random.Random(0)
    upper = ("maxLength", "maxItems", "maxProperties", "maxContains")
    for _ in range(300):
        schema: Any = {"contains": {"type": "integer"}, "minContains": 0}
        schema |= {key: chance.choice((1, 30, 60, 1000)) for key in upper}
        schema = chance.choice((schema, {"not": schema}, {"items": schema}))
        value: Any = chance.choice(
            ("a" * chance.randrange(98), [1] * chance.randrange(49), ["aa"] * chance.randrange(16))
        )
        if chance.random() < 0.3:
            value = {f"{index:x}": 1 for index in range(chance.randrange(15))}
        assert len(json.dumps(value, separators=(",", ":"))) <= MAX_BYTES
        before, after = Draft202012Validator(schema), Draft202012Validator(reached(schema))
        assert before.is_valid(value) == after.is_valid(value), (schema, value)
