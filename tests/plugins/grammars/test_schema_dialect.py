"""Schemas of older drafts, judged by jsonschema in the draft that they name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from jsonschema.validators import validator_for  # type: ignore[import-untyped]

from jackfield.contracts.grammar import GrammarSpec
from jackfield.errors import RequestError
from jackfield.testing.grammars import VOCABULARY
from jackfield_grammars.auto import AutoBackend
from jackfield_grammars.schema_dialect import settled

OLD = "http://json-schema.org/draft-0{}/schema#"
CASES: list[tuple[int, Any, list[Any]]] = [
    (7, {"type": "array", "contains": {"const": 5}}, [[], [1], [5], [5, 1], [1, 2]]),
    (
        6,
        {"type": "array", "items": [{"type": "integer"}], "additionalItems": False},
        [[], [1], ["a"], [1, 2]],
    ),
    (7, {"type": "array", "items": {"type": "integer"}, "additionalItems": False}, [[1, 2], ["a"]]),
    (4, {"type": "integer", "minimum": 3, "exclusiveMinimum": True}, [2, 3, 4]),
    (4, {"type": "integer", "maximum": 3, "exclusiveMaximum": False}, [2, 3, 4]),
    (
        7,
        {"$ref": "#/definitions/a", "type": "null", "definitions": {"a": {"type": "integer"}}},
        [None, 1],
    ),
    (
        7,
        {
            "$id": "http://example.org/a/b",
            "definitions": {
                "one": {"$id": "http://example.org/a/name", "type": "string"},
                "other": {"$id": "http://example.org/c/name", "type": "integer"},
            },
            "allOf": [{"$id": "http://example.org/c/", "$ref": "name"}],
        },
        ["a", 1],
    ),
    (7, {"type": "array", "contains": {"const": 1}, "minContains": 0}, [[1], [2]]),
    (7, {"type": "string", "contentEncoding": "base64"}, ["YWI=", "a", "%%%%", ""]),
]
BACKEND = AutoBackend(VOCABULARY)


def allows(schema: Any, value: Any) -> bool:
    matcher = BACKEND.compile(GrammarSpec(kind="json_schema", text=json.dumps(schema))).matcher()
    if not all(map(matcher.accept, json.dumps(value).encode())):
        return False
    masks = np.zeros((1, VOCABULARY.mask_words), dtype=np.int32)
    matcher.fill_bitmask(masks, 0)
    return bool(masks[0, VOCABULARY.size // 32] >> (VOCABULARY.size % 32) & 1)


@pytest.mark.parametrize(("draft", "schema", "values"), CASES)
def test_an_older_draft_means_what_it_meant(draft: int, schema: Any, values: list[Any]) -> None:
    schema = {"$schema": OLD.format(draft), **schema}
    validator = validator_for(schema)(schema)
    found = [allows(schema, value) for value in values]
    if "contentEncoding" in schema:  # which jsonschema takes for an annotation
        assert found == [True, False, False, True]
    else:
        assert found == [validator.is_valid(value) for value in values]


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": OLD.format(7), "contentMediaType": "application/json"},
        {"$schema": OLD.format(7), "prefixItems": [{"type": "null"}], "items": [True]},
    ],
)
def test_what_drafts_understand_differently_is_refused(schema: Any) -> None:
    with pytest.raises(RequestError):
        BACKEND.compile(GrammarSpec(kind="json_schema", text=json.dumps(schema)))


def test_an_unknown_dialect_is_taken_for_the_newest() -> None:
    schema = {"$schema": "https://example.org/own.json", "type": "integer", "minimum": 2}
    assert [allows(schema, value) for value in (1, 2, "a")] == [False, True, False]
    assert settled(schema) == {"type": "integer", "minimum": 2}


def test_items_by_place_in_an_older_draft_hold_in_both_readings() -> None:
    schema: Any = {"type": "array", "prefixItems": [{"minimum": 3}], "items": {"type": "integer"}}
    values: list[Any] = [[], [3], [2], ["a"], [3, 1], [3, "a"], [5, 6, 7]]
    drafts = (OLD.format(7), "https://json-schema.org/draft/2020-12/schema")
    readings = [{"$schema": draft, **schema} for draft in drafts]
    for value in values:
        is_valid = all(validator_for(each)(each).is_valid(value) for each in readings)
        assert allows(readings[0], value) == is_valid, value
