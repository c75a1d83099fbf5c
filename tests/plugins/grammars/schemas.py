"""Random JSON Schemas, and written ones for each keyword of draft 2020-12."""

from __future__ import annotations

import random
from typing import Any

WRITTEN: tuple[Any, ...] = (
    True,
    {},
    {"type": "null"},
    {"type": "boolean"},
    {"type": "integer"},
    {"type": "integer", "minimum": -3, "exclusiveMaximum": 7},
    {"type": "integer", "minimum": 0.5, "maximum": 3.5},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
    {"type": "number", "minimum": -1.5, "exclusiveMaximum": -0.25},
    {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100},
    {"type": "string"},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "maxLength": 0},
    {"type": "string", "pattern": r"^[a-c]+\d{2}$"},
    {"type": "string", "pattern": "x"},
    {"type": "string", "pattern": r"^(\w+|\S\s)*$"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "made up"},
    {"type": ["string", "null"], "maxLength": 3},
    {"type": ["integer", "array"], "minimum": 4, "maxItems": 1},
    {"const": 'a "quoted"\n text \u00e9\U0001f600'},
    {"const": {"a": [1, {"b": None}], "c": ""}},
    {"const": []},
    {"enum": [1, "1", True, None, [], {"a": 1.5}]},
    {"type": "string", "enum": ["a", 1, "b"]},
    {"type": "array"},
    {"type": "array", "items": False},
    {"type": "array", "maxItems": 0},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
    {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "boolean"}},
    {"type": "array", "uniqueItems": False, "items": {"type": "null"}},
    {"type": "array", "contains": {"type": "integer"}},
    {"type": "array", "uniqueItems": True},
    {"type": "object"},
    {"type": "object", "additionalProperties": False},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"a": {"type": "null"}, "b": False}},
    {"type": "object", "properties": {'\u00e9"\n': True}, "required": ['\u00e9"\n']},
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
        "additionalProperties": {"type": "null"},
    },
    {
        "type": "object",
        "properties": {"a": {}, "b": {}, "c": {}},
        "additionalProperties": False,
        "minProperties": 2,
        "maxProperties": 2,
    },
    {"type": "object", "minProperties": 1, "maxProperties": 2},
    {"type": "object", "minProperties": 3},
    {
        "type": "object",
        "patternProperties": {"^x": {"type": "null"}},
        "additionalProperties": False,
    },
    {"type": "object", "properties": {"xa": {}}, "patternProperties": {"^x": {"type": "null"}}},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}},
    {"type": "object", "dependentRequired": {"a": ["b"]}},
    {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None, "title": "T"},
    {"anyOf": [{"type": "integer"}, False]},
    {"type": "string", "anyOf": [{"maxLength": 2}, {"minLength": 4}]},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "value": {"type": kind}},
                "required": ["kind", "value"],
            }
            for kind in ("integer", "boolean")
        ]
    },
    {"allOf": [{"type": "integer"}]},
    {"allOf": [{"minimum": 2}, {"maximum": 5}], "type": "integer"},
    {"not": {"type": "string"}},
    {"if": {"type": "string"}, "then": {"maxLength": 1}},
    {"if": {"type": "string"}},
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer", "maximum": 3}}},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    {"$ref": "#/$defs/missing"},
    {"$ref": "https://example.com/other.json"},
    {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["next"],
                "additionalProperties": False,
            }
        },
    },
    {"maxLength": 2},
    {"minimum": 3},
    {"type": "object", "unevaluatedProperties": False, "properties": {"a": {}}},
)


def random_schema(chance: random.Random, depth: int = 3) -> Any:
    """A schema out of keywords that backends do, nested up to ``depth``."""
    kinds = [_integer, _number, _string, _enum, _plain]
    if depth:
        kinds += [_array, _object, _object, _either]
    return chance.choice(kinds)(chance, depth)


def _integer(chance: random.Random, depth: int) -> Any:
    low = chance.randrange(-50, 50)
    schema: dict[str, Any] = {"type": "integer"}
    if chance.random() < 0.6:
        schema[chance.choice(["minimum", "exclusiveMinimum"])] = low
    if chance.random() < 0.6:
        schema[chance.choice(["maximum", "exclusiveMaximum"])] = low + chance.randrange(3, 500)
    return schema


def _number(chance: random.Random, depth: int) -> Any:
    low = round(chance.uniform(-9, 9), chance.randrange(3))
    schema: dict[str, Any] = {"type": "number"}
    if chance.random() < 0.5:
        schema[chance.choice(["minimum", "exclusiveMinimum"])] = low
    if chance.random() < 0.5:
        schema[chance.choice(["maximum", "exclusiveMaximum"])] = low + chance.randrange(1, 20)
    return schema


def _string(chance: random.Random, depth: int) -> Any:
    if chance.random() < 0.3:
        patterns = ["^[a-z]{1,3}$", r"^\d+(-\d+)?$", "a|b", r"^[^x]{2}\.$", '^"?[A-F0-9]*$']
        return {"type": "string", "pattern": chance.choice(patterns)}
    schema: dict[str, Any] = {"type": "string"}
    if chance.random() < 0.5:
        schema["minLength"] = chance.randrange(3)
    if chance.random() < 0.7:
        schema["maxLength"] = chance.randrange(3, 8)
    return schema


def _enum(chance: random.Random, depth: int) -> Any:
    values = ["a", "b c", "\u00fc", 'q"', 0, -2, 1.5, True, None, [1], {"k": [None]}]
    return {"enum": chance.sample(values, chance.randrange(1, 5))}


def _plain(chance: random.Random, depth: int) -> Any:
    return {"type": chance.choice(["boolean", "null", "integer", "string"])}


def _array(chance: random.Random, depth: int) -> Any:
    schema: dict[str, Any] = {"type": "array", "items": random_schema(chance, depth - 1)}
    if chance.random() < 0.3:
        schema["prefixItems"] = [random_schema(chance, depth - 1)]
    if chance.random() < 0.5:
        schema["minItems"] = chance.randrange(3)
    schema["maxItems"] = chance.randrange(3, 5)
    return schema


def _object(chance: random.Random, depth: int) -> Any:
    names = chance.sample(["a", "b", "name", "\u00e9", "x y", 'q"'], chance.randrange(1, 4))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: random_schema(chance, depth - 1) for name in names},
        "required": [name for name in names if chance.random() < 0.7],
    }
    if chance.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


def _either(chance: random.Random, depth: int) -> Any:
    return {"anyOf": [random_schema(chance, depth - 1) for _ in range(chance.randrange(1, 4))]}
