from __future__ import annotations

import json
import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tests.plugins.grammars.schemas import WRITTEN, random_schema

from jackfield.contracts.grammar import GrammarBackend, GrammarSpec
from jackfield.errors import RequestError
from jackfield.testing.grammars import VOCABULARY, generate
from jackfield.text.json_schema import closed
from jackfield_grammars.auto import AutoBackend
from jackfield_grammars.guidance import GuidanceBackend
from jackfield_grammars.xgrammar import XGrammarBackend

NUM_RANDOM = 120
RANDOM = [random_schema(random.Random(seed)) for seed in range(NUM_RANDOM)]


@pytest.fixture(scope="module", params=[XGrammarBackend, GuidanceBackend, AutoBackend])
def backend(request: pytest.FixtureRequest) -> GrammarBackend:
    made: GrammarBackend = request.param(VOCABULARY)
    return made


def outputs(backend: GrammarBackend, schema: Any, seed: int, count: int) -> list[Any] | None:
    """Values that a random model would write; None if the backend refuses the schema."""
    try:
        compiled = backend.compile(GrammarSpec(kind="json_schema", text=json.dumps(schema)))
    except RequestError:
        return None
    chance = random.Random(seed)
    texts = [generate(compiled.matcher(), chance) for _ in range(count)]
    return [json.loads(text, parse_constant=pytest.fail) for text in texts if text is not None]


@pytest.mark.parametrize("schema", WRITTEN, ids=json.dumps)
def test_what_is_written_for_a_keyword_is_valid_or_the_schema_refused(
    backend: GrammarBackend, schema: Any
) -> None:
    validator = Draft202012Validator(schema)
    for value in outputs(backend, schema, 3, 8) or ():
        validator.validate(value)
    for value in outputs(backend, closed(schema), 4, 4) or ():
        validator.validate(value)


def test_what_is_written_for_random_schemas_is_valid(backend: GrammarBackend) -> None:
    num_outputs = 0
    for seed, schema in enumerate(RANDOM):
        validator = Draft202012Validator(schema)
        values = outputs(backend, schema, seed, 3)
        for value in values or ():
            assert validator.is_valid(value), (schema, value)
        num_outputs += len(values or ())
    assert num_outputs > NUM_RANDOM


def test_no_plain_schema_is_refused_by_auto() -> None:
    backend = AutoBackend(VOCABULARY)
    refused = [schema for schema in RANDOM if outputs(backend, schema, 0, 0) is None]
    assert not refused


# What xgrammar's own conversion would let through (found with JSON-Schema-Test-Suite).
INVALID = [
    ({"type": "string", "maxLength": 5}, '"a\tb"'),
    ({"type": "string", "maxLength": 1}, '"\\n\\n"'),
    ({"type": "string", "pattern": "^a(bc*)?$"}, '"ac"'),
    ({"type": "object", "properties": {"a": {"type": "null"}}}, '{"\\u0061": 1}'),
    ({"type": "object", "properties": {}, "required": ["a"]}, "{}"),
    ({"type": "string", "enum": ["a", 1]}, "1"),
    ({"type": "string", "format": "date"}, '"2021-02-30"'),
    # And what llguidance's would.
    ({"type": "string", "pattern": '^[^"]$'}, '"\\""'),
    ({"type": "string", "pattern": r"^[^-\\]$"}, '"\\\\"'),
    ({"type": "string", "pattern": "^[^-b]$"}, '"-"'),
]


@pytest.mark.parametrize(("schema", "text"), INVALID)
def test_what_is_invalid_cannot_be_written(backend: GrammarBackend, schema: Any, text: str) -> None:
    compiled = backend.compile(GrammarSpec(kind="json_schema", text=json.dumps(schema)))
    matcher = compiled.matcher()
    masks = [matcher.accept(byte) for byte in text.encode()]
    assert not all(masks) or text == "{}"


_MANY: list[Any] = [
    {"anyOf": [{"properties": {f"a{i}": {}}}, {"properties": {f"b{i}": {}}}]} for i in range(7)
]
REFUSED = {
    "contains": {"type": "array", "contains": {"type": "integer"}, "minContains": 99},
    "not": {"type": "string", "not": {"pattern": "a"}},
    "oneOf": {"oneOf": [{"pattern": "a"}, {"pattern": "b"}]},
    "unevaluatedProperties": {"allOf": _MANY, "unevaluatedProperties": False},
    "else": {"if": {"pattern": "a"}, "else": {"type": "null"}},
}


@pytest.mark.parametrize("feature", REFUSED)
def test_a_refusal_names_the_feature(backend: GrammarBackend, feature: str) -> None:
    spec = GrammarSpec(kind="json_schema", text=json.dumps(REFUSED[feature]))
    with pytest.raises(RequestError, match=feature):
        backend.compile(spec)


REFUSED_BY_XGRAMMAR = {
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "contains": {"type": "array", "contains": {"type": "integer"}},
    "not": {"type": "integer", "not": {"const": 1}},
    "oneOf": {"oneOf": [{"minimum": 1}, {"maximum": 3}]},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "else": {"if": {"type": "string"}, "else": {"type": "null"}},
}


@pytest.mark.parametrize("feature", REFUSED_BY_XGRAMMAR)
def test_what_xgrammar_lacks_is_refused_by_name(feature: str) -> None:
    spec = GrammarSpec(kind="json_schema", text=json.dumps(REFUSED_BY_XGRAMMAR[feature]))
    with pytest.raises(RequestError, match=feature):
        XGrammarBackend(VOCABULARY).compile(spec)
