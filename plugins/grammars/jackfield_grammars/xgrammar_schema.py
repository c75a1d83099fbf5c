"""What xgrammar does right of JSON Schema, and how to write a schema so that it does.

xgrammar ignores keywords that it does not know, and those that stand beside ``anyOf``, ``const``
and the like. Here only what is known to be right passes. A schema may come out narrower than it was
(properties in their order, no others beside them): every output that it allows is valid.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jackfield.errors import RequestError
from jackfield_grammars.formats import FORMATS
from jackfield_grammars.json_regex import json_text_regex
from jackfield_grammars.schema_facts import (
    KEYWORDS,
    Schema,
    are_disjoint,
    assertions,
    is_local,
    keywords_of,
    matches_type,
    resolve,
    types_of,
)
from jackfield_grammars.texts import refuse
from jackfield_grammars.xgrammar_ebnf import MAX_LENGTH_RULES, Length

_BEYOND = "beyond xgrammar"
_EXACT_INTEGERS = 2**53
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A schema for xgrammar.

    The constant ``placeholder`` followed by i stands for the strings that ``strings[i]`` says:
    a regex that their JSON text matches, or how many characters they have.
    """

    schema: dict[str, Any]
    strings: tuple[str | Length, ...]
    placeholder: str


def rewritten(
    schema: object, *, keeps_formats: bool = True, narrows_long: bool = True
) -> Rewritten:
    """Rewrites a schema; ``RequestError`` names what xgrammar cannot do, and where. Where formats
    are not kept they are annotations, as they are in the specification. With ``narrows_long`` long
    strings of limited length have no escapes, else they are refused."""
    root = schema if isinstance(schema, Mapping) else {}
    walk = _Walk(root, keeps_formats, narrows_long)
    result = walk.node(schema, "#")
    for name in ("$defs", "definitions"):
        definitions = root.get(name)
        if isinstance(definitions, Mapping):
            used = {
                key: each for key, each in definitions.items() if f"#/{name}/{key}" in walk.used
            }
            result = {**result, name: walk.each(used, f"#/{name}")}
    lengths = [each for each in walk.strings if isinstance(each, Length)]
    if len({name for each in lengths for name, _ in each.rules()}) > MAX_LENGTH_RULES + 1:
        raise refuse(f"that many different lengths of strings are {_BEYOND}")
    return Rewritten(result, tuple(walk.strings), walk.placeholder)


class _Walk:
    """One schema being rewritten."""

    def __init__(self, root: Schema, keeps_formats: bool, narrows_long: bool) -> None:
        self.root = root
        self.narrows_long = narrows_long
        self.formats = FORMATS if keeps_formats else {}
        self.strings: list[str | Length] = []
        self.placeholder = "pattern"
        while self.placeholder in json.dumps(root):
            self.placeholder += "_"
        self.used = _references(root)
        self._by_type: dict[str, Callable[[Schema, set[str], str], dict[str, Any]]] = {
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "array": self._array,
            "object": self._object,
        }

    def each(self, nodes: Mapping[str, object], path: str) -> dict[str, Any]:
        """A mapping of schemas."""
        return {key: self.node(each, f"{path}/{key}") for key, each in nodes.items()}

    def node(self, node: object, path: str) -> dict[str, Any]:
        """One schema."""
        if node is True:
            return {}
        if not isinstance(node, Mapping):
            raise _refusal(path, "a schema that allows nothing")
        found = assertions(node)
        if not found:
            return {}
        for keyword, rewrite in (
            ("$ref", self._reference),
            ("const", self._constant),
            ("enum", self._enumeration),
            ("allOf", self._all_of),
            ("anyOf", self._any_of),
            ("oneOf", self._one_of),
        ):
            if keyword in found:
                return rewrite(node, found, path)
        types = types_of(node, found)
        known = {"type"}.union(*map(keywords_of, types)) if types else {"type"}
        if "type" not in found:
            # Then values of other types are valid too; the narrower reading is what is meant.
            types = types[:1]
            known = {"type", *keywords_of(types[0])} if types else {"type"}
        self._only(found, known, path)
        parts = [self._typed(name, node, found, path) for name in types]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}

    # --- references, constants, combinations ---------------------------------------------

    def _reference(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        self._only(found, {"$ref"}, path, beside="$ref")
        reference = node["$ref"]
        target = resolve(self.root, node)
        if not is_local(reference) or target is None:
            raise _refusal(path, f"the reference {str(reference)[:80]!r}")
        if isinstance(target, Mapping) and "$ref" in target:
            raise _refusal(path, "a reference that leads to itself")
        return {"$ref": reference}

    def _constant(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        self._only(found, {"const", "type"}, path, beside="const")
        return self._values([node["const"]], node, found, path)

    def _enumeration(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        self._only(found, {"enum", "type"}, path, beside="enum")
        values = node["enum"]
        if not isinstance(values, list):
            raise _refusal(path, "an enum that is no list")
        return self._values(values, node, found, path)

    def _values(
        self, values: list[Any], node: Schema, found: set[str], path: str
    ) -> dict[str, Any]:
        if "type" in found:
            types = types_of(node, found)
            values = [each for each in values if any(matches_type(each, name) for name in types)]
        if not values:
            raise _refusal(path, "a schema that allows nothing")
        plain = [each for each in values if not isinstance(each, list | dict)]
        parts = [{"enum": plain}] if plain else []
        for value in plain:
            _check_number(value, path)
        parts += [_exactly(each, path) for each in values if isinstance(each, list | dict)]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}

    def _all_of(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        self._only(found, {"allOf"}, path, beside="allOf")
        parts = node["allOf"]
        if len(parts) != 1:
            raise _refusal(path, "allOf of several schemas")
        return self.node(parts[0], f"{path}/allOf/0")

    def _any_of(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        self._only(found, {"anyOf"}, path, beside="anyOf")
        return self._branches(node["anyOf"], f"{path}/anyOf")

    def _one_of(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        self._only(found, {"oneOf"}, path, beside="oneOf")
        if not are_disjoint(self.root, node["oneOf"]):
            raise _refusal(path, "oneOf of schemas that a value may fit at once")
        return self._branches(node["oneOf"], f"{path}/oneOf")

    def _branches(self, branches: list[object], path: str) -> dict[str, Any]:
        parts = [
            self.node(each, f"{path}/{index}")
            for index, each in enumerate(branches)
            if each is not False
        ]
        if not parts:
            raise _refusal(path, "a schema that allows nothing")
        return parts[0] if len(parts) == 1 else {"anyOf": parts}

    # --- types ----------------------------------------------------------------------------

    def _typed(self, name: str, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        rewrite = self._by_type.get(name)
        if rewrite is None:
            return {"type": name}
        rest = rewrite(node, found & keywords_of(name), path)
        return rest if "const" in rest else {"type": name, **rest}

    def _string(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        if node.get("format") not in self.formats:
            found = found - {"format"}
        if found & {"pattern", "format"}:
            if len(found) > 1:
                raise _refusal(path, " beside ".join(sorted(found)))
            pattern = FORMATS[node["format"]] if "format" in found else node["pattern"]
            return self._listed_string(json_text_regex(pattern, lambda what: _refusal(path, what)))
        least, most = (node.get(key) for key in ("minLength", "maxLength"))
        length = Length(int(least or 0), None if most is None else int(most))
        if length == Length(0, None):
            return {}
        if length.most is not None and length.least > length.most:
            return self._nothing(path)
        if length.is_long and not self.narrows_long:
            keyword = "minLength" if length.most is None else "maxLength"
            raise _refusal(path, f"{keyword} {node[keyword]} (at most {MAX_LENGTH_RULES})")
        return self._listed_string(length)

    def _listed_string(self, string: str | Length) -> dict[str, Any]:
        if string not in self.strings:
            self.strings.append(string)
        return {"const": f"{self.placeholder}{self.strings.index(string)}"}

    def _integer(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        self._no_multiples(node, path)
        low, high = -math.inf, math.inf
        if "minimum" in found:
            low = math.ceil(node["minimum"])
        if "exclusiveMinimum" in found:
            low = max(low, math.floor(node["exclusiveMinimum"]) + 1)
        if "maximum" in found:
            high = math.floor(node["maximum"])
        if "exclusiveMaximum" in found:
            high = min(high, math.ceil(node["exclusiveMaximum"]) - 1)
        if low > high:
            raise _refusal(path, "a schema that allows nothing")
        limits = {"minimum": low, "maximum": high}
        kept = {key: int(value) for key, value in limits.items() if math.isfinite(value)}
        if any(abs(value) > _EXACT_INTEGERS for value in kept.values()):
            raise _refusal(path, "integer limits beyond 2**53")
        return kept

    def _number(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        self._no_multiples(node, path)
        for key in found & set(_LIMITS):
            if abs(node[key]) > _EXACT_INTEGERS or 0 < abs(node[key]) < 1e-6:
                raise _refusal(path, f"{key} {node[key]}")
        return {key: node[key] for key in found if key in _LIMITS}

    def _no_multiples(self, node: Schema, path: str) -> None:
        if "multipleOf" in node:
            raise _refusal(path, "multipleOf")

    def _array(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        known = {"items", "prefixItems", "additionalItems", "minItems", "maxItems"}
        self._only(found, known, path)
        prefix, rest = node.get("prefixItems", []), node.get("items", True)
        if isinstance(rest, list):  # as drafts up to 7 write it
            prefix, rest = rest, node.get("additionalItems", True)
        result: dict[str, Any] = {
            key: _whole(node[key]) for key in found & {"minItems", "maxItems"}
        }
        if prefix:
            result["prefixItems"] = [
                self.node(each, f"{path}/prefixItems/{index}") for index, each in enumerate(prefix)
            ]
        result["items"] = False if rest is False else self.node(rest, f"{path}/items")
        if rest is False and not prefix:
            return {"maxItems": 0} if not result.get("minItems") else self._nothing(path)
        return result

    def _nothing(self, path: str) -> dict[str, Any]:
        raise _refusal(path, "a schema that allows nothing")

    def _object(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        known = set(KEYWORDS["object"]) - {
            "dependentRequired",
            "dependentSchemas",
            "dependencies",
            "unevaluatedProperties",
        }
        self._only(found, known, path)
        properties = dict(node.get("properties", {}))
        others = node.get("additionalProperties", True)
        for name in node.get("required", ()):
            if name not in properties:
                if others is False or "patternProperties" in found:
                    raise _refusal(path, f"the required property {name[:80]!r} without a schema")
                properties[name] = others
        limits = {key: _whole(node[key]) for key in found & {"minProperties", "maxProperties"}}
        if properties:
            return {**self._listed(node, properties, found, path), **limits}
        if limits.get("minProperties", 0) > 1:
            # A name may come twice, and counts once.
            raise _refusal(path, "minProperties of properties that are not listed")
        return {**self._unlisted(node, found, path), **limits}

    def _listed(
        self, node: Schema, properties: dict[str, Any], found: set[str], path: str
    ) -> dict[str, Any]:
        """No others come beside them: xgrammar would let them repeat a name by an escape."""
        self._only(found, found - {"propertyNames"}, path, beside="properties")
        for pattern in node.get("patternProperties", {}):
            if not _misses_all(pattern, properties):
                raise _refusal(path, "patternProperties for a property that is listed")
        allowed = {name: each for name, each in properties.items() if each is not False}
        required = [name for name in allowed if name in node.get("required", ())]
        if len(required) < len(set(node.get("required", ()))):
            raise _refusal(path, "a required property that must not be there")
        return {
            "properties": self.each(allowed, f"{path}/properties"),
            "required": required,
            "additionalProperties": False,
        }

    def _unlisted(self, node: Schema, found: set[str], path: str) -> dict[str, Any]:
        others = node.get("additionalProperties", True)
        patterns = node.get("patternProperties", {})
        if patterns:
            raise _refusal(path, "patternProperties")
        if others is False:
            return {"properties": {}, "additionalProperties": False}
        if "propertyNames" in found:
            raise _refusal(path, "propertyNames")
        return {"additionalProperties": self.node(others, f"{path}/additionalProperties")}

    def _only(
        self, found: set[str], known: set[str] | frozenset[str], path: str, beside: str = ""
    ) -> None:
        unknown = sorted(found - known)
        if unknown:
            raise _refusal(path, unknown[0] + (f" beside {beside}" if beside else ""))


def _refusal(path: str, what: str) -> RequestError:
    return refuse(f"{what} (at {path[:120]}) is {_BEYOND}")


def _references(node: object) -> set[str]:
    """Every ``$ref`` in a schema."""
    if isinstance(node, Mapping):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(_references, node.values()))
    if isinstance(node, list):
        return set().union(*map(_references, node))
    return set()


def _misses_all(pattern: str, names: Mapping[str, object]) -> bool:
    try:
        return not any(re.search(pattern, name) for name in names)
    except re.error:
        return False


def _whole(value: Any) -> Any:
    """2.0 as 2, which is the same number and what the library takes."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_number(value: object, path: str) -> None:
    if isinstance(value, int | float) and abs(value) > _EXACT_INTEGERS:
        raise _refusal(path, f"the number {value}")


def _exactly(value: object, path: str) -> dict[str, Any]:
    """The schema of one value, with space between its tokens as elsewhere."""
    if isinstance(value, dict):
        return {
            "type": "object",
            "properties": {key: _exactly(each, path) for key, each in value.items()},
            "required": list(value),
            "additionalProperties": False,
        }
    if isinstance(value, list):
        if not value:
            return {"type": "array", "maxItems": 0}
        return {
            "type": "array",
            "prefixItems": [_exactly(each, path) for each in value],
            "items": False,
            "minItems": len(value),
        }
    _check_number(value, path)
    return {"enum": [value]}
