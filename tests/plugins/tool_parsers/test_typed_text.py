from __future__ import annotations

import json

import pytest

from jackfield_tool_parsers.typed_text import completed_json, json_types, only_texts, to_json

ROOT = {
    "$defs": {
        "count": {"type": "integer"},
        "loop": {"$ref": "#/$defs/loop"},
        "a/b": {"type": ["string", "null"]},
    }
}


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({}, None),
        (True, None),
        ({"type": "string"}, {"string"}),
        ({"type": ["integer", "null"]}, {"integer", "null"}),
        ({"type": "str"}, {"string"}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"string", "null"}),
        ({"oneOf": [{"type": "string"}, {}]}, None),
        ({"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}, {"string"}),
        ({"type": "string", "nullable": True}, {"string", "null"}),
        ({"enum": ["a", 1, None, 1.5, True, [], {}]}, None),
        ({"enum": ["a", "b"]}, {"string"}),
        ({"const": 3}, {"integer"}),
        ({"properties": {}}, {"object"}),
        ({"items": {}}, {"array"}),
        ({"$ref": "#/$defs/count"}, {"integer"}),
        ({"$ref": "#/$defs/a~1b"}, {"string", "null"}),
        ({"$ref": "#/$defs/nowhere"}, None),
        ({"$ref": "https://example.com/schema"}, None),
        ({"$ref": "#/$defs/loop"}, None),
    ],
)
def test_a_schema_says_the_types_of_its_values(schema: object, types: set[str] | None) -> None:
    found = json_types(schema, ROOT)
    if isinstance(schema, dict) and len(schema.get("enum", ())) > 2:
        types = {"string", "integer", "null", "number", "boolean", "array", "object"}
    assert found == types


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("12", {"string"}, "12"),
        ("12", {"integer"}, 12),
        (" 12 ", {"integer"}, 12),
        ("12", {"string", "integer"}, 12),
        ("12.5", {"integer", "string"}, "12.5"),
        ("5.0", {"integer"}, 5.0),
        ("1e3", {"number"}, 1000.0),
        ("True", {"boolean"}, True),
        ("false", {"boolean", "string"}, False),
        ("null", {"string", "null"}, None),
        ("None", {"null", "integer"}, None),
        ("null", {"string"}, "null"),
        ("NaN", {"number"}, "NaN"),
        ("many", {"integer"}, "many"),
        ('{"a": [1, "x"]}', {"object"}, {"a": [1, "x"]}),
        ("{'a': True, 'b': (1, None)}", {"object"}, {"a": True, "b": [1, None]}),
        ("[1, 2", {"array"}, "[1, 2"),
        ("", {"object"}, {}),
        ("", {"array", "null"}, []),
        ("", {"string"}, ""),
        ('"quoted"', {"integer"}, "quoted"),
        ('"quoted"', {"string"}, '"quoted"'),
        ("12", None, 12),
        ('{"a": 1}', None, {"a": 1}),
        ("plain words", None, "plain words"),
        ("9" * 400, {"integer"}, int("9" * 400)),
        ("[" * 500, {"array"}, "[" * 500),
        ("__import__('os')", {"object"}, "__import__('os')"),
    ],
)
def test_a_text_is_what_its_types_make_of_it(
    text: str, types: set[str] | None, value: object
) -> None:
    assert json.loads(to_json(text, None if types is None else frozenset(types))) == value


def test_numbers_keep_the_digits_that_the_model_wrote() -> None:
    assert to_json("1.50", frozenset({"number"})) == "1.50"


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": [1, "x', {"a": [1, "x"]}), ("[1, 2", [1, 2]), ("12", 12), ("tru", "tru")],
)
def test_a_text_that_broke_off_is_completed(text: str, value: object) -> None:
    assert json.loads(completed_json(text, None)) == value


@pytest.mark.parametrize(
    ("schema", "texts"),
    [
        ({"enum": ["a", None]}, {"a"}),
        ({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}, {"a", "b"}),
        ({"oneOf": [{"$ref": "#/$defs/c"}, {"type": "integer"}]}, {"c"}),
        ({"anyOf": [{"enum": ["a"]}, {"type": "string"}]}, set()),
        ({"anyOf": [{"enum": ["a"]}, {}]}, set()),
        ({"$ref": "#/$defs/loop"}, set()),
        ({"enum": 5}, set()),
    ],
)
def test_texts_are_listed_where_there_are_no_others(schema: object, texts: set[str]) -> None:
    root = {"$defs": {"c": {"const": "c"}, "loop": {"$ref": "#/$defs/loop"}}}
    assert only_texts(schema, root) == texts
