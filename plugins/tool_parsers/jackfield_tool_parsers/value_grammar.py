"""Grammars of arguments that are not JSON: keywords, fields, and texts between tags."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jackfield_tool_parsers.literals import KEYWORD
from jackfield_tool_parsers.table import ToolFormat
from jackfield_tool_parsers.typed_text import STRING, json_types

Grammar = dict[str, Any]
Schema = Mapping[str, object]
_MAX_DEPTH = 8
_SHARED = ("$defs", "definitions")
_TEXT_LIMITS = ("pattern", "minLength", "maxLength", "format")


class Unforceable(Exception):
    """A schema that a format's grammar cannot be bound to."""


def keyword_arguments(schema: Schema) -> Grammar:
    """``a=1, b="x"``, values as JSON has them, which the parser reads as well as Python's."""
    return _members(
        schema, lambda key: f"{_bare(key)}=", lambda key, value: _json_value(value, schema), ", "
    )


def fields_object(schema: Schema, quote: str) -> Grammar:
    """``{a:1,b:<|"|>x<|"|>}``."""
    return _fields(schema, schema, quote, 0)


def tagged_parameters(made: ToolFormat, schema: Schema) -> Grammar:
    """``<parameter=a>1</parameter>...``, where xgrammar has no style of its own for the tags."""
    opening, closing = made.parameter_open, made.value_end[0]
    marker, said_first = next(iter(made.key_end.items()))
    strings = others = marker
    if said_first != "schema":
        says = {kind: each for each, kind in made.key_end.items()}
        strings, others = says["string"], says["json"]

    def value(key: str, said: Schema) -> Grammar:
        types = json_types(said, schema)
        if types is None or types == STRING:
            return _behind(strings, _text(said, closing, types is None))
        if "string" in types:
            raise Unforceable
        return _between(others, _json_value(said, schema), closing)

    return _members(
        schema, lambda key: f"{opening}{key}", value, "\n" if "\n" in made.call_close[0] else ""
    )


def _text(schema: Schema, end: str, is_any: bool) -> Grammar:
    """A text and what ends it."""
    if is_any and schema:
        raise Unforceable
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, Sequence) and values:
        return _either([{"type": "const_string", "value": f"{each}{end}"} for each in values])
    if any(limit in schema for limit in _TEXT_LIMITS):
        raise Unforceable
    return {"type": "tag", "begin": "", "content": {"type": "any_text"}, "end": end}


def _fields(schema: Schema, root: Schema, quote: str, depth: int) -> Grammar:
    def value(key: str, said: Schema) -> Grammar:
        return _field(said, root, quote, depth + 1)

    members = _members(schema, lambda key: f"{_bare(key)}:", value, ",")
    return _between("{", members, "}")


def _field(said: Schema, root: Schema, quote: str, depth: int) -> Grammar:
    types = json_types(said, root)
    if types is None or len(types) != 1 or depth > _MAX_DEPTH or "$ref" in said:
        raise Unforceable
    if types == STRING:
        text = _text(said, quote, False)
        return _behind(quote, text)
    if types == {"object"}:
        return _fields(said, root, quote, depth)
    if types == {"array"}:
        items = said.get("items")
        limits = {"minItems", "maxItems", "uniqueItems", "prefixItems", "contains"} & said.keys()
        if not isinstance(items, Mapping) or limits:
            raise Unforceable
        item = _field(items, root, quote, depth + 1)
        comma = {"type": "const_string", "value": ","}
        more = {"type": "star", "content": {"type": "sequence", "elements": [comma, item]}}
        some = {"type": "sequence", "elements": [item, more]}
        return _between("[", {"type": "optional", "content": some}, "]")
    return _json_value(said, root)


def _bare(key: str) -> str:
    """A name that stands without quotes, if its end can be seen."""
    if not key or not KEYWORD.fullmatch(key):
        raise Unforceable
    return key


def _behind(begin: str, content: Grammar) -> Grammar:
    return {"type": "sequence", "elements": [{"type": "const_string", "value": begin}, content]}


def _between(begin: str, content: Grammar, end: str) -> Grammar:
    opening, closing = ({"type": "const_string", "value": each} for each in (begin, end))
    return {"type": "sequence", "elements": [opening, content, closing]}


def _members(
    schema: Schema,
    begin: Callable[[str], str],
    value: Callable[[str, Schema], Grammar],
    separator: str,
) -> Grammar:
    """A schema's properties in their order, the required ones always; empty if it has none."""
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping) or _combines(schema):
        raise Unforceable
    required = schema.get("required", ())
    needed = set(required) if isinstance(required, Sequence) else set()
    if not needed <= properties.keys():
        raise Unforceable
    written: list[tuple[list[Grammar], bool]] = []
    for key, said in properties.items():
        head = {"type": "const_string", "value": begin(key)}
        body = value(key, said if isinstance(said, Mapping) else {})
        written.append(([head, body], key in needed))
    return _joined(written, separator)


def _joined(members: Sequence[tuple[list[Grammar], bool]], separator: str) -> Grammar:
    """Members one after the other, separated; those that are not needed may be left out.

    Behind the first one that is there, each comes with the separator before it; which one is the
    first is a choice among those up to the first needed one.
    """
    ways = []
    for first, (elements, is_needed) in enumerate(members):
        rest = [_separated(each, separator) for each in members[first + 1 :]]
        ways.append({"type": "sequence", "elements": [*elements, *rest]})
        if is_needed:
            return _either(ways)
    return {"type": "optional", "content": _either(ways)} if ways else _nothing()


def _separated(member: tuple[list[Grammar], bool], separator: str) -> Grammar:
    elements, is_needed = member
    comma = [{"type": "const_string", "value": separator}] if separator else []
    whole = {"type": "sequence", "elements": [*comma, *elements]}
    return whole if is_needed else {"type": "optional", "content": whole}


def _nothing() -> Grammar:
    return {"type": "regex", "pattern": "()"}


def _either(elements: Sequence[Grammar]) -> Grammar:
    return elements[0] if len(elements) == 1 else {"type": "or", "elements": list(elements)}


def _combines(schema: Schema) -> bool:
    """Whether a schema says more of its properties together than which there are."""
    said = ("anyOf", "oneOf", "allOf", "not", "$ref", "if", "minProperties", "patternProperties")
    return any(key in schema for key in (*said, "dependentRequired", "dependentSchemas"))


def _json_value(said: Schema, root: Schema) -> Grammar:
    """JSON, bound to a part of a schema; what the whole defines is known in it."""
    shared = {key: root[key] for key in _SHARED if key in root}
    if '"#/properties' in json.dumps(said):
        raise Unforceable
    return {"type": "json_schema", "json_schema": {**shared, **said}, "max_whitespace_cnt": 16}
