"""JSON Schemas of requests: their bounds, and objects without properties that nobody listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jackfield.errors import RequestError

MAX_DEPTH = 64
MAX_NODES = 5000
MAX_ENUM = 5000

MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose values are schemas by name."""
_SAME_VALUE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref"})
"""Keywords whose schemas are about the value that the schema itself is about."""
_SPEAKS_OF_OTHERS = frozenset(
    {
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "propertyNames",
        "minProperties",
        "dependentSchemas",
        "dependentRequired",
        "dependencies",
    }
)
DATA = frozenset({"const", "enum", "default", "examples", "required", "type"})
"""Keywords whose values are no schemas."""


def check_bounds(schema: object) -> None:
    """Raises ``RequestError`` for a schema beyond the bounds, or that is none."""
    if not isinstance(schema, Mapping | bool):
        raise _refusal(f"a schema is an object or a boolean, not {type(schema).__name__}")
    level: list[Any] = [schema]
    num_nodes = 0
    for _ in range(MAX_DEPTH + 1):
        num_nodes += len(level)
        if num_nodes > MAX_NODES:
            raise _refusal(f"the schema has more than {MAX_NODES} parts")
        level = [each for node in level for each in _parts(node)]
        if not level:
            return
    raise _refusal(f"the schema is nested more than {MAX_DEPTH} deep")


def _parts(node: object) -> list[Any]:
    """Objects and lists inside; a list of plain values counts as one."""
    if isinstance(node, Mapping):
        values = list(node.values())
        listed = node.get("enum")
        if isinstance(listed, list) and len(listed) > MAX_ENUM:
            raise _refusal(f"an enum has {len(listed)} values; {MAX_ENUM} are allowed")
    else:
        values = node if isinstance(node, list) else []
    return [each for each in values if isinstance(each, Mapping | list)]


def closed(schema: Any) -> Any:
    """The schema with ``additionalProperties: false`` wherever an object's ``properties`` are
    listed and nothing is said of others.

    Not where another schema may speak of the same object: beside or inside ``allOf`` and the
    like; inside ``anyOf`` only where it stands alone. Fewer values are valid than before, and none
    that was not.
    """
    if not isinstance(schema, Mapping):
        return schema
    return _Closing(schema).node(schema, can_close=True)


class _Closing:
    """Finds out at the start which definitions cannot be closed: O(parts), as each is looked at
    anew once, when some reference turns out to combine it with other schemas."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._shared: set[str] = set()
        """Definitions that some reference combines with other schemas."""
        self._found: list[str] = []
        """Those of them that are yet to be looked at as such."""
        self._definitions: dict[str, dict[int, Any]] = {}
        """By reference; several where an inner schema has definitions of its own."""
        self.node(root, can_close=True)
        while self._found:
            for definition in [*self._definitions.get(self._found.pop(), {}).values()]:
                self.node(definition, can_close=False)

    def node(self, node: Any, *, can_close: bool) -> Any:
        """A schema; ``can_close`` says whether nothing else speaks of the same value."""
        if not isinstance(node, Mapping):
            return node
        reference = node.get("$ref")
        combined = _SAME_VALUE & node.keys()
        alone = can_close and len(combined) == 1 and "properties" not in node
        if isinstance(reference, str) and not alone and reference not in self._shared:
            self._shared.add(reference)
            self._found.append(reference)
        is_told_apart = "discriminator" in node
        result = {key: self._value(key, each, alone, is_told_apart) for key, each in node.items()}
        if (
            can_close
            and "properties" in node
            and not combined
            and not _SPEAKS_OF_OTHERS & node.keys()
        ):
            result["additionalProperties"] = False
        return result

    def _value(self, key: str, value: Any, alone: bool, is_told_apart: bool) -> Any:
        if key in ("$defs", "definitions") and isinstance(value, Mapping):
            for name, each in value.items():
                self._definitions.setdefault(f"#/{key}/{name}", {})[id(each)] = each
            return {
                name: self.node(each, can_close=f"#/{key}/{name}" not in self._shared)
                for name, each in value.items()
            }
        if key in DATA:
            return value
        if key in MAPS and isinstance(value, Mapping):
            return {
                name: self.node(each, can_close=key != "dependentSchemas")
                for name, each in value.items()
            }
        if key in _SAME_VALUE:
            can_close = alone and _is_closable(key, value, is_told_apart)
            if isinstance(value, list):
                return [self.node(each, can_close=can_close) for each in value]
            return self.node(value, can_close=False)
        if isinstance(value, list):
            return [self.node(each, can_close=True) for each in value]
        return self.node(value, can_close=key not in ("contains", "propertyNames"))


def _is_closable(key: str, value: Any, is_told_apart: bool) -> bool:
    """Whether schemas under a keyword may be closed: what is closed in one schema of ``oneOf``
    may fit another, unless a property (OpenAPI's ``discriminator``) tells them apart."""
    if key == "oneOf":
        return is_told_apart
    return key == "anyOf" or (key == "allOf" and isinstance(value, list) and len(value) == 1)


def _refusal(what: str) -> RequestError:
    return RequestError(f"structured_outputs: {what}", "structured_outputs")
