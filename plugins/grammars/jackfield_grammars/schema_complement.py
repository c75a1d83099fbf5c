"""The schema of the values that a schema forbids, out of keywords that backends have.

It may allow less than the complement, never more: what cannot be written so is left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jackfield_grammars.schema_facts import TYPES, Schema, assertions, matches_type, resolve
from jackfield_grammars.texts import refuse

_ALL_TYPES = tuple(name for name in TYPES if name != "integer")
Other = Callable[[Any], Any]
"""The complement of a part."""

_MAX_DEPTH = 12
_MAX_PARTS = 20_000
_MAX_CHARACTERS = 400
"""Of the texts that a regex excludes."""


class Document:
    """A schema to which references refer, and how much may still be made out of it."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.leaves_unique = False
        """Whether some ``uniqueItems`` was taken out, to be kept beside the schema."""
        self._num_left = _MAX_PARTS

    def count(self) -> None:
        """Of every part that is looked at; refuses a schema of which too many are made."""
        self._num_left -= 1
        if self._num_left < 0:
            raise refuse("a schema whose alternatives multiply is beyond guidance")


def complement(document: Document, node: object, depth: int = _MAX_DEPTH) -> Any:
    """A schema, True or False; None where nothing of the complement can be written."""
    document.count()
    node = resolve(document.root, node)
    if isinstance(node, bool):
        return not node
    if not isinstance(node, dict) or depth <= 0:
        return None
    found = assertions(node)
    if not found:
        return False
    parts = [part for key in sorted(found) for part in _parts(document, node, key, depth - 1)]
    if any(part is True for part in parts):
        return True
    parts = [part for part in parts if part is not False]
    if not parts:
        return None if found - {"type"} else False
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def _parts(document: Document, node: Schema, key: str, depth: int) -> Iterator[Any]:
    """Schemas of values that one keyword forbids."""
    value = node[key]
    if key in _SIMPLE:
        yield from _SIMPLE[key](value)
    elif key in _NESTED:
        yield from _NESTED[key](node, value, lambda each: complement(document, each, depth))


def _of_all(node: Schema, value: Any, other: Other) -> Iterator[Any]:
    for each in value:
        yield from _known(other(each))


def _of_any(node: Schema, value: Any, other: Other) -> Iterator[Any]:
    yield from _all(map(other, value))


def _of_then(node: Schema, value: Any, other: Other) -> Iterator[Any]:
    yield from _all([node["if"], other(value)])


def _of_else(node: Schema, value: Any, other: Other) -> Iterator[Any]:
    yield from _all([other(node["if"]), other(value)])


def _of_properties(node: Schema, value: Any, other: Other) -> Iterator[Any]:
    for name, each in value.items():
        for part in _known(other(each)):
            yield {"type": "object", "properties": {name: part}, "required": [name]}


def _of_items(node: Schema, value: Any, other: Other) -> Iterator[Any]:
    if "prefixItems" not in node and not isinstance(value, list):
        for part in _known(other(value)):
            yield {"type": "array", "prefixItems": [part], "minItems": 1}


def _of_contains(node: Schema, value: Any, other: Other) -> Iterator[Any]:
    if node.get("minContains", 1) > 0:
        for part in _known(other(value)):
            yield {"type": "array", "items": part}


def _of_dependent(node: Schema, value: Any, other: Other) -> Iterator[Any]:
    for name, each in value.items():
        yield from _all([{"type": "object", "required": [name]}, other(each)])


_NESTED: dict[str, Callable[[Schema, Any, Other], Iterator[Any]]] = {
    "not": lambda node, value, other: iter([value]),
    "allOf": _of_all,
    "anyOf": _of_any,
    "oneOf": _of_any,
    "then": _of_then,
    "else": _of_else,
    "properties": _of_properties,
    "items": _of_items,
    "contains": _of_contains,
    "dependentSchemas": _of_dependent,
}


def _known(part: Any) -> list[Any]:
    return [] if part is None or part is False else [part]


def _all(parts: Any) -> Iterator[Any]:
    """Values that fit all of the schemas, if all of them can be written."""
    listed = list(parts)
    if all(part is not None and part is not False for part in listed):
        yield {"allOf": listed}


def _types(said: str | Sequence[str]) -> Iterator[Any]:
    named = {said} if isinstance(said, str) else set(said)
    if "integer" in named:
        # What is a number and no integer cannot be written.
        named.add("number")
    others = [name for name in _ALL_TYPES if name not in named]
    if others:
        yield {"type": others}


def _constants(values: Sequence[Any]) -> Iterator[Any]:
    """Values of other types; other booleans, numbers and strings."""
    free = [name for name in _ALL_TYPES if not any(matches_type(each, name) for each in values)]
    if free:
        yield {"type": free}
    if any(isinstance(each, bool) for each in values):
        others = [each for each in (True, False) if not any(each is known for known in values)]
        if others:
            yield {"enum": others}
    numbers = sorted({each for each in values if matches_type(each, "number")})
    if numbers:
        limits = [None, *numbers, None]
        for low, high in itertools.pairwise(limits):
            between = {"exclusiveMinimum": low, "exclusiveMaximum": high}
            given = {key: each for key, each in between.items() if each is not None}
            yield {"type": "number", **given}
    texts = [each for each in values if isinstance(each, str)]
    if texts and sum(map(len, texts)) <= _MAX_CHARACTERS:
        yield {"type": "string", "pattern": f"^({_other_texts(set(texts))})$"}


def _other_texts(texts: set[str]) -> str:
    """A regex of all texts but these, none of which may be missing: a walk along their letters."""
    firsts = sorted({text[0] for text in texts if text})
    ways = [] if "" in texts else [""]
    excluded = "".join(re.escape(each) if each in r"\]^-[" else each for each in firsts)
    ways.append((f"[^{excluded}]" if firsts else r"[\s\S]") + r"[\s\S]*")
    for first in firsts:
        rest = _other_texts({text[1:] for text in texts if text.startswith(first)})
        ways.append(f"{re.escape(first)}({rest})")
    return "|".join(ways)


def _absent(names: Sequence[str]) -> Iterator[Any]:
    for name in names:
        yield {"type": "object", "properties": {name: False}}


def _dependent(names: dict[str, list[str]]) -> Iterator[Any]:
    for name, others in names.items():
        for other in others:
            if other != name:
                yield {"type": "object", "required": [name], "properties": {other: False}}


def _at_most(type_name: str, keyword: str) -> Callable[[Any], Iterator[Any]]:
    def parts(least: Any) -> Iterator[Any]:
        if least > 0:
            yield {"type": type_name, keyword: int(least) - 1}

    return parts


def _at_least(type_name: str, keyword: str) -> Callable[[Any], Iterator[Any]]:
    return lambda most: iter([{"type": type_name, keyword: int(most) + 1}])


def _number(keyword: str) -> Callable[[Any], Iterator[Any]]:
    return lambda limit: iter([{"type": "number", keyword: limit}])


_SIMPLE: dict[str, Callable[[Any], Iterator[Any]]] = {
    "type": _types,
    "const": lambda value: _constants([value]),
    "enum": _constants,
    "required": _absent,
    "dependentRequired": _dependent,
    "minimum": _number("exclusiveMaximum"),
    "maximum": _number("exclusiveMinimum"),
    "exclusiveMinimum": _number("maximum"),
    "exclusiveMaximum": _number("minimum"),
    "minLength": _at_most("string", "maxLength"),
    "maxLength": _at_least("string", "minLength"),
    "minItems": _at_most("array", "maxItems"),
    "maxItems": _at_least("array", "minItems"),
    "minProperties": _at_most("object", "maxProperties"),
    "maxProperties": _at_least("object", "minProperties"),
}
