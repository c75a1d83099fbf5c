"""Keywords that no backend has, out of simpler ones: judged by jsonschema, instance by instance."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from jackfield.contracts.grammar import GrammarSpec
from jackfield.errors import RequestError
from jackfield.testing.grammars import VOCABULARY, generate
from jackfield_grammars.auto import AutoBackend
from jackfield_grammars.schema_complement import Document, complement
from jackfield_grammars.schema_lowering import lowered

AB = {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
KINDS = [
    {"if": {"properties": {"k": {"const": k}}, "required": ["k"]}, "then": {"required": [k]}}
    for k in "xy"
]
EXACT: list[tuple[Any, list[Any]]] = [
    ({"dependentRequired": {"a": ["b"]}}, [{}, {"b": 1}, {"a": 1}, {"a": 1, "b": 2}, 7]),
    (
        {"dependentSchemas": {"a": {"properties": {"b": {"type": "null"}}}}},
        [{"a": 1, "b": None}, {"a": 1, "b": 2}, {"b": 2}, []],
    ),
    ({"dependencies": {"a": ["b"]}}, [{"b": 1}, {"a": 1, "b": 2}]),
    (
        {"not": {"enum": ["ab", "b", 3, None]}},
        ["ab", "a", "abc", "", "b", "c", 3, 4, 2.5, None, []],
    ),
    ({"type": "integer", "not": {"minimum": 3, "maximum": 5}}, [2, 3, 5, 6]),
    ({"not": {"required": ["a"]}}, [{}, {"a": 1}, {"b": 1}, "a"]),
    ({"properties": {"a": {"not": {}}}}, [{}, {"a": 1}, {"b": 2}]),
    ({"anyOf": [{"not": True}, {"type": "integer"}]}, [1, "a"]),
    ({"items": {"not": {}}}, [[], [1]]),
    ({"not": {"not": {"type": "string", "maxLength": 1}}}, ["", "ab", 1]),
    ({"oneOf": [{"minimum": 2}, {"maximum": 4}]}, [1, 2, 3, 4, 5]),
    (
        {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 1}, {"a": 1, "b": 1}, {}],
    ),
    (
        {"if": {"maxLength": 2}, "then": {"const": "x"}, "else": {"pattern": "^abc"}},
        ["x", "y", "abcd", "abd"],
    ),
    (
        {"type": "object", "properties": {"k": {"enum": ["x", "y"]}}, "allOf": KINDS},
        [{"k": "x", "x": 1}, {"k": "y"}, {"k": "x"}, {"z": 1}],
    ),
    ({"contains": True, "minContains": 2}, [[], [1], [1, 2], "x"]),
    (
        {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True},
        [[], ["a"], ["c", "a"], ["a", "a"], ["a", "b", "c"]],
    ),
    (
        {"type": "object", "propertyNames": {"pattern": "^x"}, "additionalProperties": {}},
        [{}, {"x": 1}, {"y": 1}, {"xy": 1, "x": 2}],
    ),
    ({"propertyNames": {"maxLength": 1}}, [{"a": 1}, {"ab": 1}, 3]),
    (
        {"type": "object", "allOf": [AB], "unevaluatedProperties": False},
        [{"a": 1}, {"a": 1, "b": "x"}, {"c": 1}, {"a": "x"}],
    ),
    (
        {
            "type": "object",
            "properties": {"t": {}},
            "anyOf": [{"properties": {"a": {"const": 1}}}, {"required": ["b"], **AB}],
            "unevaluatedProperties": False,
        },
        [{"t": 1}, {"a": 1}, {"a": 2}, {"a": 2, "b": "x"}, {"t": 1, "b": "x"}, {"c": 1}],
    ),
    (
        {"$ref": "#/$defs/ab", "unevaluatedProperties": {"type": "null"}, "$defs": {"ab": AB}},
        [{"a": 1}, {"a": 1, "c": None}, {"c": 1}],
    ),
    (
        {"type": "array", "allOf": [{"prefixItems": [{"const": 1}]}], "unevaluatedItems": False},
        [[], [1], [2], [1, 2]],
    ),
]
NARROWER: list[tuple[Any, list[Any]]] = [
    ({"type": "array", "contains": {"type": "integer"}}, [[1], [1, "a"], [], ["a"]]),
    ({"contains": {"const": 1}, "minContains": 1, "maxContains": 2}, [[1], [1, 2], [2], [1, 1, 1]]),
    ({"not": {"type": "integer"}}, ["a", 1, None]),
    ({"type": "number", "oneOf": [{"type": "integer"}, {"minimum": 2}]}, [1, 2, 2.5, 1.5]),
    ({"not": {"items": {"type": "string"}}}, [[1], ["a"], []]),
]


def allowed(schema: Any, instance: Any) -> bool:
    compiled = AutoBackend(VOCABULARY).compile(
        GrammarSpec(kind="json_schema", text=json.dumps(schema))
    )
    matcher = compiled.matcher()
    if not all(map(matcher.accept, json.dumps(instance).encode())):
        return False
    masks = np.zeros((1, VOCABULARY.mask_words), dtype=np.int32)
    matcher.fill_bitmask(masks, 0)
    return bool(masks[0, VOCABULARY.size // 32] >> (VOCABULARY.size % 32) & 1)


@pytest.mark.parametrize(("schema", "instances"), EXACT, ids=str)
def test_what_is_valid_is_allowed_and_nothing_else(schema: Any, instances: list[Any]) -> None:
    validator = Draft202012Validator(schema)
    for instance in instances:
        assert allowed(schema, instance) == validator.is_valid(instance), instance


@pytest.mark.parametrize(("schema", "instances"), NARROWER, ids=str)
def test_what_is_narrower_allows_something_and_nothing_invalid(
    schema: Any, instances: list[Any]
) -> None:
    validator = Draft202012Validator(schema)
    found = [instance for instance in instances if allowed(schema, instance)]
    assert found and all(map(validator.is_valid, found))


@pytest.mark.parametrize("schema", [each for each, _ in EXACT + NARROWER], ids=str)
def test_what_is_written_is_valid(schema: Any) -> None:
    spec = GrammarSpec(kind="json_schema", text=json.dumps(schema))
    compiled = AutoBackend(VOCABULARY).compile(spec)
    validator = Draft202012Validator(schema)
    chance = random.Random(7)
    texts = [generate(compiled.matcher(), chance) for _ in range(6)]
    for text in texts:
        if text is not None:
            validator.validate(json.loads(text))


def test_a_value_fits_a_schema_or_its_complement_but_not_both() -> None:
    values = [None, True, 0, 3, 4.5, "", "ab", [], [1, "a"], {}, {"a": 1}, {"a": "x", "b": 2}]
    for schema, _ in EXACT + NARROWER:
        other = complement(Document(schema), schema)
        for value in values if other is not None else ():
            both = Draft202012Validator(
                {"allOf": [schema, other], "$defs": schema.get("$defs", {})}
            )
            assert not both.is_valid(value), (schema, value)


@pytest.mark.parametrize("width", [3, 30])
def test_alternatives_that_multiply_are_refused_at_once(width: int) -> None:
    schema: Any = {"minimum": 3}
    for _ in range(8):
        schema = {"oneOf": [{"allOf": [schema, {"maximum": i}]} for i in range(width)]}
    with pytest.raises(RequestError, match="alternatives"):
        lowered(schema)
