"""Which parts of a schema speak of the value at a place in a JSON text."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jackfield_grammars.schema_facts import Schema, assertions, pointed_at
from jackfield_grammars.texts import refuse

Nodes = tuple[Schema, ...]

_SAME_VALUE = ("allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas", "$ref")
_COMBINING = frozenset(_SAME_VALUE) - {"dependentSchemas"}
_ELSEWHERE = frozenset({"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef"})
_FEW = {"boolean": (b"true", b"false"), "null": (b"null",)}
_MAX_FINITE = 64


class SchemaPaths:
    """Follows a value into a schema. May say more parts than a value has to fit, never fewer."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._check(root)
        self.root = self._closure([root])
        self._items: dict[tuple[int, ...], Nodes] = {}
        self._properties: dict[tuple[tuple[int, ...], str], Nodes] = {}

    def _check(self, node: object) -> None:
        """Refuses references that lead elsewhere than their pointer says, or may."""
        if isinstance(node, list):
            for each in node:
                self._check(each)
        elif isinstance(node, Mapping):
            reference = node.get("$ref")
            is_lost = isinstance(reference, str) and pointed_at(self._root, reference) is None
            if is_lost or (node is not self._root and _ELSEWHERE & node.keys()):
                raise refuse("uniqueItems beside references that are no plain pointers")
            for each in node.values():
                self._check(each)

    def items(self, nodes: Nodes) -> Nodes:
        """What speaks of the items of an array."""
        key = tuple(map(id, nodes))
        if key not in self._items:
            parts: list[Any] = []
            for node in nodes:
                parts += node.get("prefixItems", ())
                parts += [node.get(name) for name in ("items", "contains", "unevaluatedItems")]
            self._items[key] = self._closure(parts)
        return self._items[key]

    def property(self, nodes: Nodes, name: str) -> Nodes:
        """What speaks of a property of an object."""
        key = (tuple(map(id, nodes)), name)
        if key not in self._properties:
            parts: list[Any] = []
            for node in nodes:
                listed = node.get("properties", {})
                patterns = node.get("patternProperties", {})
                found = [listed[name]] if name in listed else []
                found += [each for pattern, each in patterns.items() if _fits(pattern, name)]
                others = ("additionalProperties", "unevaluatedProperties")
                parts += found or [node.get(other) for other in others]
            self._properties[key] = self._closure(parts)
        return self._properties[key]

    def texts(self, nodes: Nodes) -> frozenset[bytes] | None:
        """All values as JSON texts, where one part says which few there are."""
        if len(nodes) != 1:
            return None
        (node,) = nodes
        if "const" in node or "enum" in node:
            return _texts([node["const"]] if "const" in node else node["enum"])
        said = node.get("type", ())
        types = [said] if isinstance(said, str) else said
        if types and set(types) <= _FEW.keys():
            return frozenset(itertools.chain(*(_FEW[each] for each in types)))
        low, high = node.get("minimum"), node.get("maximum")
        if node.get("type") == "integer" and isinstance(low, int) and isinstance(high, int):
            if high - low < _MAX_FINITE and "multipleOf" not in node:
                return _texts(range(low, high + 1))
        return None

    def _closure(self, parts: Iterable[Any]) -> Nodes:
        """The schemas and those that speak of the same value."""
        found: dict[int, Schema] = {}
        left = list(parts)
        while left:
            node = left.pop()
            if not isinstance(node, Mapping) or id(node) in found:
                continue
            found[id(node)] = node
            for key in _SAME_VALUE:
                value = node.get(key)
                if key == "$ref" and value is not None:
                    left.append(pointed_at(self._root, value))
                elif key == "dependentSchemas" and isinstance(value, Mapping):
                    left += value.values()
                elif value is not None:
                    left += value if isinstance(value, list) else [value]
        return tuple(node for node in found.values() if assertions(node) - _COMBINING)


def _fits(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True


def _texts(values: Iterable[Any]) -> frozenset[bytes] | None:
    listed = list(values)
    if any(isinstance(each, float | list | dict) for each in listed):
        return None
    return frozenset(json.dumps(each, ensure_ascii=False).encode() for each in listed)
