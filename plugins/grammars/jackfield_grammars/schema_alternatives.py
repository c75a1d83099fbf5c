"""A schema as alternatives of which each says by itself which properties and items it speaks of.

That is what ``unevaluatedProperties`` and ``unevaluatedItems`` are about: they see through
``allOf``, ``$ref`` and those branches of ``anyOf``, ``oneOf`` and ``if`` that a value fits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jackfield_grammars.schema_complement import Document, complement
from jackfield_grammars.schema_facts import Schema, is_local, resolve

MAX_ALTERNATIVES = 32
_MAX_DEPTH = 8
_COMBINING = frozenset(
    {"allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas", "$ref"}
)
_CLOSING = frozenset({"unevaluatedProperties", "unevaluatedItems"})


@dataclass(frozen=True, slots=True)
class Alternative:
    """``parts`` are schemas that all hold. ``names`` and ``patterns`` of the properties that they
    speak of, and the number of leading items; all of them with ``all_names``, ``all_items``."""

    parts: tuple[Any, ...] = ()
    names: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    num_items: int = 0
    all_names: bool = False
    all_items: bool = False

    def __and__(self, other: Alternative) -> Alternative:
        return Alternative(
            self.parts + other.parts,
            self.names | other.names,
            self.patterns | other.patterns,
            max(self.num_items, other.num_items),
            self.all_names or other.all_names,
            self.all_items or other.all_items,
        )


class CannotTellError(Exception):
    """What a schema speaks of depends on more than can be followed here."""


def closed_alternatives(document: Document, node: Schema) -> list[Any]:
    """Schemas without the closing keywords of ``node``; a value that fits one fits the node."""
    closing = {key: node[key] for key in _CLOSING if key in node}
    rest = {key: value for key, value in node.items() if key not in closing}
    return [
        {"allOf": [*found.parts, *_closings(found, closing)]}
        for found in _alternatives(document, rest, _MAX_DEPTH)
    ]


def _closings(found: Alternative, closing: Schema) -> Iterable[Any]:
    if "unevaluatedProperties" in closing and not found.all_names:
        yield {
            "properties": dict.fromkeys(sorted(found.names), True),
            "patternProperties": dict.fromkeys(sorted(found.patterns), True),
            "additionalProperties": closing["unevaluatedProperties"],
        }
    if "unevaluatedItems" in closing and not found.all_items:
        yield {"prefixItems": [True] * found.num_items, "items": closing["unevaluatedItems"]}


def _alternatives(document: Document, node: object, depth: int) -> list[Alternative]:
    document.count()
    if isinstance(node, bool):
        return [Alternative()] if node else []
    if not isinstance(node, dict) or depth <= 0:
        raise CannotTellError
    if "$dynamicRef" in node or "$recursiveRef" in node:
        raise CannotTellError
    if "contains" in node:
        # Which items it speaks of is known only from the values.
        raise CannotTellError
    factors = [[_own(document, node, depth)]]
    factors += [_alternatives(document, each, depth - 1) for each in node.get("allOf", ())]
    if "$ref" in node:
        factors.append(_referenced(document, node, depth))
    if "anyOf" in node:
        factors.append(_any_of(document, node["anyOf"], depth))
    if "oneOf" in node:
        factors.append(_one_of(document, node["oneOf"], depth))
    if "if" in node:
        factors.append(_conditional(document, node, depth))
    for name, each in node.get("dependentSchemas", {}).items():
        absent = Alternative(({"properties": {name: False}},))
        factors.append(
            [absent, *_with({"required": [name]}, _alternatives(document, each, depth - 1))]
        )
    return _product(factors)


def _own(document: Document, node: Schema, depth: int) -> Alternative:
    """What the keywords say that combine nothing."""
    if any(key in node for key in _CLOSING):
        (part, *others) = closed_alternatives(document, node)
        if others or depth < 2:
            raise CannotTellError
        own = {"allOf": [part]}
    else:
        own = {key: value for key, value in node.items() if key not in _COMBINING}
    prefix, items = node.get("prefixItems", []), "items" in node
    if isinstance(node.get("items"), list):
        prefix, items = node["items"], "additionalItems" in node
    return Alternative(
        (own,),
        frozenset(node.get("properties", ())),
        frozenset(node.get("patternProperties", ())),
        len(prefix),
        "additionalProperties" in node or "unevaluatedProperties" in node,
        items or "unevaluatedItems" in node,
    )


def _referenced(document: Document, node: Schema, depth: int) -> list[Alternative]:
    target = resolve(document.root, {"$ref": node["$ref"]})
    if not is_local(node["$ref"]) or target is None:
        raise CannotTellError
    return _alternatives(document, target, depth - 1)


def _any_of(document: Document, branches: Sequence[Any], depth: int) -> list[Alternative]:
    """Each branch, and where there are few those that a value fits together."""
    each = [_alternatives(document, branch, depth - 1) for branch in branches]
    together = [
        found
        for count in range(2, len(each) + 1 if len(each) <= 3 else 0)
        for some in itertools.combinations(each, count)
        for found in _product(some)
    ]
    return [found for branch in each for found in branch] + together


def _one_of(document: Document, branches: Sequence[Any], depth: int) -> list[Alternative]:
    found: list[Alternative] = []
    for part in exclusive(document, branches):
        found += _with({"allOf": part[1:]}, _alternatives(document, part[0], depth - 1))
    return found


def exclusive(document: Document, branches: Sequence[Any]) -> list[list[Any]]:
    """Of each branch of ``oneOf`` the schemas that hold where it alone does: its own first."""
    others = [complement(document, branch) for branch in branches]
    result = []
    for index, branch in enumerate(branches):
        rest = others[:index] + others[index + 1 :]
        if any(each is None for each in rest):
            raise CannotTellError
        result.append([branch, *(each for each in rest if each is not True)])
    return result


def _conditional(document: Document, node: Schema, depth: int) -> list[Alternative]:
    condition, other = node["if"], complement(document, node["if"])
    if other is None:
        raise CannotTellError
    fits = _product(
        [
            _alternatives(document, condition, depth - 1),
            _alternatives(document, node.get("then", True), depth - 1),
        ]
    )
    return fits + _with(other, _alternatives(document, node.get("else", True), depth - 1))


def _with(part: Any, found: list[Alternative]) -> list[Alternative]:
    return [Alternative((part,)) & each for each in found]


def _product(factors: Iterable[Sequence[Alternative]]) -> list[Alternative]:
    result = [Alternative()]
    for factor in factors:
        result = [one & other for one in result for other in factor]
        if len(result) > MAX_ALTERNATIVES:
            raise CannotTellError
    return result
