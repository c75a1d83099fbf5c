"""Keywords of JSON Schema that no backend has, out of those that backends have.

Every value that fits the lowered schema fits the schema. The other way round it holds where it
can: ``contains`` puts what must be there first, and a complement may leave something out. What
cannot be said is left as it is, for the backend to refuse.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

from jackfield_grammars.schema_alternatives import (
    CannotTellError,
    closed_alternatives,
    exclusive,
)
from jackfield_grammars.schema_complement import Document, complement
from jackfield_grammars.schema_facts import (
    ASSERTIONS,
    DATA,
    MAPS,
    Schema,
    are_disjoint,
    assertions,
    resolve,
)

_MAX_CONTAINED = 8
_MAX_ARRAYS = 256
"""Arrays without repetition that are listed one by one."""


def lowered(schema: Any) -> tuple[Any, bool]:
    """The schema in simpler keywords, and whether it still needs ``uniqueItems`` to be kept
    beside it."""
    if not isinstance(schema, Mapping):
        return schema, False
    document = Document(schema)
    return _Lowering(document).node(schema), document.leaves_unique


class _Lowering:
    def __init__(self, document: Document) -> None:
        self._document = document

    def node(self, node: Any) -> Any:
        """One schema and what is in it."""
        if isinstance(node, list):
            return [self.node(each) for each in node]
        if not isinstance(node, Mapping):
            return node
        self._document.count()
        for keyword, lower in _LOWERINGS.items():
            if keyword in node and keyword in assertions(node):
                simpler = lower(self._document, node)
                if simpler is not None:
                    return self.node(simpler)
        return {key: self._value(key, value) for key, value in node.items()}

    def _value(self, key: str, value: Any) -> Any:
        if key in DATA:
            return value
        if key in MAPS and isinstance(value, Mapping):
            return {name: self.node(each) for name, each in value.items()}
        return self.node(value)


def _replaced(node: Schema, keywords: set[str], parts: list[Any]) -> dict[str, Any]:
    """The schema without some keywords, and with parts that must hold beside the others."""
    result = {key: value for key, value in node.items() if key not in keywords}
    parts = [part for part in parts if part is not True]
    if parts:
        result["allOf"] = [*result.get("allOf", []), *parts]
    return result


def _unevaluated(document: Document, node: Schema) -> dict[str, Any] | None:
    try:
        found = closed_alternatives(document, node)
    except CannotTellError:
        return None
    rest = {key: value for key, value in node.items() if key not in ASSERTIONS}
    return {**rest, "anyOf": found} if found else None


def _not(document: Document, node: Schema) -> dict[str, Any] | bool | None:
    other = complement(document, node["not"])
    if other is None or other is False:
        return other
    return _replaced(node, {"not"}, [other])


def _if(document: Document, node: Schema) -> dict[str, Any] | None:
    other = complement(document, node["if"])
    if other is None:
        return None
    ways = [
        {"allOf": [node["if"], node.get("then", True)]},
        {"allOf": [other, node.get("else", True)]},
    ]
    return _replaced(node, {"if", "then", "else"}, [{"anyOf": ways}])


def _one_of(document: Document, node: Schema) -> dict[str, Any] | None:
    branches = node["oneOf"]
    if are_disjoint(document.root, branches):
        return _replaced(node, {"oneOf"}, [{"anyOf": branches}]) if "anyOf" in node else None
    try:
        ways = [{"allOf": parts} for parts in exclusive(document, branches)]
    except CannotTellError:
        return None
    return _replaced(node, {"oneOf"}, [{"anyOf": ways}])


def _dependent_required(document: Document, node: Schema) -> dict[str, Any]:
    parts = [
        {"anyOf": [{"properties": {name: False}}, {"required": [name, *others]}]}
        for name, others in node["dependentRequired"].items()
        if others
    ]
    return _replaced(node, {"dependentRequired"}, parts)


def _dependent_schemas(document: Document, node: Schema) -> dict[str, Any]:
    parts = [
        {"anyOf": [{"properties": {name: False}}, {"allOf": [_present(name), each]}]}
        for name, each in node["dependentSchemas"].items()
    ]
    return _replaced(node, {"dependentSchemas"}, parts)


def _present(name: str) -> dict[str, Any]:
    # Listed too, since properties are written in the order in which they are listed.
    return {"properties": {name: True}, "required": [name]}


def _dependencies(document: Document, node: Schema) -> dict[str, Any]:
    """As drafts up to 7 write both."""
    found = node["dependencies"]
    lists = {name: each for name, each in found.items() if isinstance(each, list)}
    rest = {name: each for name, each in found.items() if name not in lists}
    parts = [{"dependentRequired": lists}, {"dependentSchemas": rest}]
    return _replaced(node, {"dependencies"}, parts)


def _contains(document: Document, node: Schema) -> dict[str, Any] | None:
    """What must be there comes first."""
    least, most = node.get("minContains", 1), node.get("maxContains")
    wanted = node["contains"]
    keywords = {"contains", "minContains", "maxContains"}
    if least > _MAX_CONTAINED or (most is not None and most < least):
        return None
    least = int(least)
    if resolve(document.root, wanted) in (True, {}):
        part: dict[str, Any] = {"minItems": least}
        if most is not None:
            part["maxItems"] = int(most)
        return _replaced(node, keywords, [part])
    part = {"prefixItems": [wanted] * least, "minItems": least}
    if most is not None:
        other = complement(document, wanted)
        if other is None:
            return None
        part["items"] = other
    return _replaced(node, keywords, [part] if len(part) > 2 or least else [])


def _unique(document: Document, node: Schema) -> dict[str, Any]:
    """Arrays of few listed values one by one, where there are at most so many arrays of them;
    others are left to who follows the text."""
    if node.get("maxItems", 2) <= 1:
        return _replaced(node, {"uniqueItems"}, [])
    listed = _arrays(document, node)
    if listed:
        rest = {"type", "items", "uniqueItems", "minItems", "maxItems"}
        return {**_replaced(node, rest, []), "enum": listed}
    document.leaves_unique = True
    return _replaced(node, {"uniqueItems"}, [])


def _arrays(document: Document, node: Schema) -> list[list[Any]]:
    """All arrays that fit a schema, in every order; none where they are many or it says more."""
    known = {"type", "items", "uniqueItems", "minItems", "maxItems"}
    if node.get("type") != "array" or not assertions(node) <= known:
        return []
    items = resolve(document.root, node.get("items"))
    if not isinstance(items, Mapping) or not assertions(items) <= {"enum", "type"}:
        return []
    values = [each for each in items.get("enum", ()) if isinstance(each, str)]
    if not values or len(values) != len(items["enum"]) or len(set(values)) != len(values):
        return []
    least, most = int(node.get("minItems", 0)), int(node.get("maxItems", len(values)))
    found = [
        list(each)
        for size in range(least, min(most, len(values)) + 1)
        for each in itertools.islice(itertools.permutations(values, size), _MAX_ARRAYS + 1)
    ]
    return found if len(found) <= _MAX_ARRAYS else []


def _property_names(document: Document, node: Schema) -> dict[str, Any] | None:
    """As a pattern of the names that nobody listed."""
    names = resolve(document.root, node["propertyNames"])
    if names is True or names == {}:
        return _replaced(node, {"propertyNames"}, [])
    if names is False:
        return _replaced(node, {"propertyNames"}, [{"maxProperties": 0}])
    pattern = _pattern_of(names)
    if pattern is None or "patternProperties" in node:
        return None
    others = node.get("additionalProperties", True)
    listed = node.get("properties", {})
    try:
        fitting = {name for name in listed if re.search(pattern, name)}
    except re.error:
        return None
    if listed and others is not True and others != {}:
        return None
    result = _replaced(node, {"propertyNames"}, [])
    result["properties"] = {k: each if k in fitting else False for k, each in listed.items()}
    result["patternProperties"] = {pattern: others}
    result["additionalProperties"] = False
    return result


def _pattern_of(names: Any) -> str | None:
    """A regex of the texts of a schema that says one thing of them."""
    if not isinstance(names, Mapping):
        return None
    found = assertions(names) - {"type", "format"}
    if names.get("type", "string") != "string" or "format" in names:
        return None
    if found == {"pattern"}:
        return str(names["pattern"])
    if found and found <= {"minLength", "maxLength"}:
        most = names.get("maxLength")
        bound = "" if most is None else str(int(most))
        return rf"^[\s\S]{{{int(names.get('minLength', 0))},{bound}}}$"
    values = [names["const"]] if found == {"const"} else names.get("enum")
    if found in ({"const"}, {"enum"}) and isinstance(values, list):
        texts = [re.escape(each) for each in values if isinstance(each, str)]
        return f"^({'|'.join(texts)})$" if texts else None
    return None


_LOWERINGS: dict[str, Callable[[Document, Schema], dict[str, Any] | bool | None]] = {
    # The first two look at others that are lowered afterwards.
    "unevaluatedProperties": _unevaluated,
    "unevaluatedItems": _unevaluated,
    "dependencies": _dependencies,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "if": _if,
    "not": _not,
    "oneOf": _one_of,
    "contains": _contains,
    "uniqueItems": _unique,
    "propertyNames": _property_names,
}
