"""A schema of any dialect (``$schema``) in the keywords of draft 2020-12, as backends are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jackfield_grammars.schema_facts import ASSERTIONS, DATA, MAPS, Schema
from jackfield_grammars.texts import refuse

_OLD = re.compile(r"https?://json-schema\.org/draft-0([3-7])/schema#?")
_MIDDLE = re.compile(r"https?://json-schema\.org/draft/2019-09/schema#?")
_NEWEST = 2020
_DRAFT_7 = 7
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def settled(schema: Any) -> Any:
    """The schema without ``$schema``. Older forms of keywords are understood whatever it says;
    an unknown dialect is taken for the newest. ``contentEncoding: base64`` becomes a pattern.
    Refuses other content where the schema says draft 7, whose validators may check it."""
    if not isinstance(schema, Mapping):
        return schema
    result = _Settling(_draft(schema.get("$schema"))).node(schema)
    result.pop("$schema", None)
    return result


def _draft(dialect: object) -> int:
    old = _OLD.fullmatch(dialect) if isinstance(dialect, str) else None
    if old:
        return int(old[1])
    return 2019 if isinstance(dialect, str) and _MIDDLE.fullmatch(dialect) else _NEWEST


class _Settling:
    def __init__(self, draft: int) -> None:
        self._draft = draft

    def node(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.node(each) for each in node]
        if not isinstance(node, Mapping):
            return node
        result = {key: self._value(key, value) for key, value in node.items()}
        if self._draft <= _DRAFT_7:
            self._check_content(result)
            result = _of_old_draft(result)
        return _with_base64(_with_new_limits(_with_prefix_items(result)))

    def _value(self, key: str, value: Any) -> Any:
        if key in DATA:
            return value
        if key in MAPS and isinstance(value, Mapping):
            return {name: self.node(each) for name, each in value.items()}
        return self.node(value)

    def _check_content(self, node: Schema) -> None:
        is_other = node.get("contentEncoding", "base64") != "base64"
        if self._draft == _DRAFT_7 and ("contentMediaType" in node or is_other):
            raise refuse("contentMediaType and contentEncoding of draft 7, other than base64")


def _of_old_draft(node: dict[str, Any]) -> dict[str, Any]:
    """Up to draft 7 nothing beside a ``$ref`` counts, and there were fewer keywords."""
    if "$ref" in node:
        ignored = ASSERTIONS - {"$ref"} | {"$id", "id"}
        return {key: each for key, each in node.items() if key not in ignored}
    result = {key: each for key, each in node.items() if key not in ("minContains", "maxContains")}
    if "prefixItems" in result and isinstance(result.get("items"), Mapping | bool):
        # Whoever reads them holds to both: in older drafts ``items`` are all items.
        both = [{"allOf": [each, result["items"]]} for each in result["prefixItems"]]
        result["prefixItems"] = both
    if isinstance(result.get("id"), str):
        result.setdefault("$id", result.pop("id"))
    return result


def _with_prefix_items(node: dict[str, Any]) -> dict[str, Any]:
    """A list of ``items`` is what ``prefixItems`` are now."""
    rest = node.pop("additionalItems", None)
    if not isinstance(node.get("items"), list):
        return node
    if "prefixItems" in node:
        raise refuse("prefixItems beside a list of items")
    result = {key: value for key, value in node.items() if key != "items"}
    if node["items"]:
        result["prefixItems"] = node["items"]
    return result if rest is None else {**result, "items": rest}


def _with_new_limits(node: dict[str, Any]) -> dict[str, Any]:
    """``exclusiveMinimum: true`` said that ``minimum`` is one."""
    for exclusive, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(exclusive), bool):
            if node.pop(exclusive) and plain in node:
                node[exclusive] = node.pop(plain)
    return node


def _with_base64(node: dict[str, Any]) -> dict[str, Any]:
    if node.get("contentEncoding") != "base64":
        return node
    if "pattern" in node:
        return node | {"allOf": [*node.get("allOf", []), {"pattern": _BASE64}]}
    return node | {"pattern": _BASE64}
