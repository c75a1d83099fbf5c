"""Facts about JSON Schema (draft 2020-12) that backends share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

Schema = Mapping[str, Any]

KEYWORDS: Mapping[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset(
        {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    ),
    "array": frozenset(
        {
            "items",
            "prefixItems",
            "additionalItems",
            "minItems",
            "maxItems",
            "uniqueItems",
            "contains",
            "minContains",
            "maxContains",
            "unevaluatedItems",
        }
    ),
    "object": frozenset(
        {
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
            "dependentRequired",
            "dependentSchemas",
            "dependencies",
            "unevaluatedProperties",
        }
    ),
}
"""Assertions about values of one type; they say nothing about values of others."""

APPLICATORS = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else"})
REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
ASSERTIONS = frozenset({"type", "const", "enum"}) | APPLICATORS | REFERENCES
ASSERTIONS |= frozenset().union(*KEYWORDS.values())
"""Every keyword that can make a value invalid. Others are annotations (section 6.5 of the core
specification: unknown keywords are)."""

MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose values are schemas by name."""
DATA = frozenset({"const", "enum", "default", "examples", "required", "dependentRequired"})
"""Keywords whose values are no schemas."""

TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
_LOCAL = re.compile(r"#(?:/(?:\$defs|definitions)/[A-Za-z0-9_.\-]+)?")


def assertions(node: Schema) -> set[str]:
    """The keywords of a schema that assert something."""
    found = {key for key in node if key in ASSERTIONS}
    if not node.get("uniqueItems"):
        found.discard("uniqueItems")
    if "if" not in node:
        found -= {"then", "else"}
    elif not found & {"then", "else"}:
        found.discard("if")
    if "contains" not in node:
        found -= {"minContains", "maxContains"}
    return found


def keywords_of(type_name: str) -> frozenset[str]:
    """The assertions about values of a type."""
    return KEYWORDS.get("number" if type_name == "integer" else type_name, frozenset())


def types_of(node: Schema, found: set[str]) -> tuple[str, ...]:
    """The types that ``type`` allows; without it those that the other assertions are about, or
    all where there are none."""
    said = node.get("type")
    if isinstance(said, str):
        return (said,)
    if isinstance(said, list):
        return tuple(said)
    return tuple(name for name in TYPES if name != "integer" and keywords_of(name) & found)


def is_local(reference: object) -> bool:
    """Whether a ``$ref`` is the root or a plainly named definition."""
    return isinstance(reference, str) and _LOCAL.fullmatch(reference) is not None


def resolve(root: Schema, node: object) -> object:
    """What a chain of plain references leads to; the last one itself where it is a circle."""
    seen: set[str] = set()
    while isinstance(node, Mapping) and is_local(node.get("$ref")):
        reference = node["$ref"]
        if reference in seen:
            break
        seen.add(reference)
        target: object = root
        for part in reference.split("/")[1:]:
            target = target.get(part) if isinstance(target, Mapping) else None
        node = target
    return node


def pointed_at(root: Schema, reference: str) -> object:
    """What a JSON pointer as a fragment (RFC 6901, section 6) leads to; None where nothing."""
    node: object = root
    if not reference.startswith("#"):
        return None
    for part in unquote(reference[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping):
            node = node.get(name)
        elif isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node if reference in ("#", "") or reference.startswith("#/") else None


def matches_type(value: object, type_name: str) -> bool:
    """Whether a JSON value is of a type."""
    if type_name == "integer":
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole and not isinstance(value, bool)
    if type_name == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    kinds: Mapping[str, type | tuple[type, ...]] = {
        "string": str,
        "boolean": bool,
        "null": type(None),
        "array": list,
        "object": dict,
    }
    return isinstance(value, kinds[type_name])


def are_disjoint(root: Schema, branches: list[Any]) -> bool:
    """Whether no value can fit two of the schemas, as far as types, constants and a property
    that tells them apart can show."""
    resolved = [resolve(root, branch) for branch in branches]
    return all(
        _two_disjoint(root, one, other)
        for index, one in enumerate(resolved)
        for other in resolved[index + 1 :]
    )


def _two_disjoint(root: Schema, one: object, other: object) -> bool:
    if one is False or other is False:
        return True
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    first, second = _values(one), _values(other)
    if first is not None and second is not None:
        return not any(_equal(a, b) for a in first for b in second)
    if _types(one) and _types(other):
        if not _overlap(_types(one), _types(other)):
            return True
        if _types(one) == _types(other) == {"object"}:
            return _told_apart(root, one, other)
    return False


def _told_apart(root: Schema, one: Schema, other: Schema) -> bool:
    """By a property that both require, with values that differ."""
    shared = set(one.get("required", ())) & set(other.get("required", ()))
    for name in shared:
        first = resolve(root, one.get("properties", {}).get(name))
        second = resolve(root, other.get("properties", {}).get(name))
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            if _values(first) is not None and _values(second) is not None:
                if _two_disjoint(root, first, second):
                    return True
    return False


def _values(node: Schema) -> list[object] | None:
    if "const" in node:
        return [node["const"]]
    listed = node.get("enum")
    return listed if isinstance(listed, list) else None


def _types(node: Schema) -> set[str]:
    values = _values(node)
    if values is not None:
        return {name for name in TYPES for value in values if matches_type(value, name)}
    said = node.get("type", ())
    return {said} if isinstance(said, str) else set(said)


def _overlap(one: set[str], other: set[str]) -> bool:
    both = one & other
    numbers = {"integer", "number"}
    return bool(both) or bool(one & numbers and other & numbers)


def _equal(one: object, other: object) -> bool:
    """Equality of JSON: true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
