from __future__ import annotations

import json
import time
from typing import Any

import pytest

from jackfield.contracts.grammar import StructuredOutputs
from jackfield.errors import RequestError
from jackfield.text.grammar import grammar_spec
from jackfield.text.json_schema import closed


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


class Model:
    """What pydantic's classes have."""

    @staticmethod
    def model_json_schema() -> dict[str, Any]:
        return {"type": "integer"}


@pytest.mark.parametrize(
    ("wanted", "kind", "text"),
    [
        ({"json": {"type": "integer"}}, "json_schema", '{"type": "integer"}'),
        ({"json": '{"type":"integer"}'}, "json_schema", '{"type": "integer"}'),
        ({"json": Model}, "json_schema", '{"type": "integer"}'),
        ({"json_object": True}, "json_schema", '{"type": "object"}'),
        ({"regex": "a+"}, "regex", "a+"),
        ({"choice": ["b", "a", "b"]}, "choice", '["b", "a"]'),
        ({"grammar": 'root ::= "a"'}, "grammar", 'root ::= "a"'),
    ],
)
def test_each_kind_becomes_a_text(wanted: dict[str, Any], kind: str, text: str) -> None:
    spec = grammar_spec(StructuredOutputs(**wanted))
    assert spec is not None and (spec.kind, spec.text) == (kind, text)


@pytest.mark.parametrize("wanted", [{}, {"json": {}, "regex": "a"}, {"json_object": False}])
def test_exactly_one_kind_is_asked_for(wanted: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="exactly one"):
        StructuredOutputs(**wanted)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"json": nested(65)}, "deep"),
        ({"json": {"anyOf": [{"const": i} for i in range(5001)]}}, "parts"),
        ({"json": {"enum": list(range(5001))}}, "enum"),
        ({"json": {"description": "x" * 65536}}, "characters"),
        ({"json": "{"}, "not JSON"),
        ({"json": "[" * 60000}, "not JSON|deep"),
        ({"structural_tag": "[" * 900 + "]" * 900}, "not JSON|deep"),
        ({"json": [1]}, "object or a boolean"),
        ({"json": {"const": float("nan")}}, "not JSON"),
        ({"regex": "a" * 65537}, "characters"),
        ({"regex": ""}, "empty"),
        ({"choice": []}, "choice"),
        ({"choice": ["a", 1]}, "choice"),
        (
            {"structural_tag": {"format": {"type": "json_schema", "json_schema": nested(65)}}},
            "deep",
        ),
    ],
)
def test_bounds(wanted: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError, match=f"^response_format: .*({reason})") as caught:
        grammar_spec(StructuredOutputs(**wanted, param="response_format"))
    assert caught.value.param == "response_format"


def test_what_is_only_wanted_goes_without_a_grammar() -> None:
    assert grammar_spec(StructuredOutputs(json=nested(65), best_effort=True)) is None


A: dict[str, Any] = {"properties": {"a": {}}}
B: dict[str, Any] = {"properties": {"b": {}}}
REFERENCE = {"$ref": "#/$defs/x"}
CLOSED: dict[str, Any] = {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (A, A | CLOSED),
        (A | {"additionalProperties": True}, None),
        (A | {"patternProperties": {"x": A}}, A | {"patternProperties": {"x": A | CLOSED}}),
        ({"type": "object"}, None),
        ({"items": A}, {"items": A | CLOSED}),
        ({"anyOf": [A, B]}, {"anyOf": [A | CLOSED, B | CLOSED]}),
        ({"oneOf": [A, B]}, None),
        ({"oneOf": [A], "discriminator": {}}, {"oneOf": [A | CLOSED], "discriminator": {}}),
        ({"allOf": [A, B]}, None),
        ({"allOf": [A]}, {"allOf": [A | CLOSED]}),
        (A | {"anyOf": [B]}, None),
        ({"not": A}, None),
        ({"if": A, "then": B}, None),
        ({"contains": A}, None),
        ({"const": A}, None),
        (
            {"$ref": "#/$defs/x", "$defs": {"x": A}},
            {"$ref": "#/$defs/x", "$defs": {"x": A | CLOSED}},
        ),
        (REFERENCE | B | {"$defs": {"x": A}}, None),
        ({"allOf": [REFERENCE, B], "$defs": {"x": A}}, None),
        (True, None),
    ],
)
def test_objects_are_closed_where_nothing_else_speaks_of_them(schema: Any, expected: Any) -> None:
    before = json.dumps(schema)
    assert closed(schema) == (schema if expected is None else expected)
    assert json.dumps(schema) == before


def test_a_tag_that_is_too_long_is_refused_before_its_schemas_are_looked_at() -> None:
    schema: dict[str, Any] = {"properties": {str(index): {} for index in range(4000)}}
    tag = {"format": {"tags": [{"json_schema": schema} for _ in range(100)]}}
    began = time.thread_time()
    with pytest.raises(RequestError, match=r"structural_tag has \d+ characters"):
        grammar_spec(StructuredOutputs(structural_tag=tag))
    assert time.thread_time() - began < 1.0


def test_definitions_that_share_one_another_cost_no_more_the_more_they_are() -> None:
    # Each is found to be shared only once the one behind it is.
    definitions: dict[str, Any] = {
        f"d{index}": {"$ref": f"#/$defs/d{index + 1}"} for index in reversed(range(1600))
    }
    schema = {"allOf": [{"$ref": "#/$defs/d0"}, A], "$defs": {"d1600": A, **definitions}}
    began = time.thread_time()
    assert closed(schema) == schema
    assert time.thread_time() - began < 1.0
