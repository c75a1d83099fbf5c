"""Bounds of a grammar that no answer can come to: upper ones are left out, lower ones refused.

An answer of so many tokens has so many bytes at the most, and a string, an array or an object in
it no more characters or parts. A bound beyond that holds for every answer, or for none; but some
libraries take their time in every step for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from jackfield.contracts.grammar import GrammarSpec
from jackfield.errors import RequestError
from jackfield.text.json_schema import DATA, MAPS

_LEAST_BYTES = {"Length": 1, "Items": 2, "Contains": 2, "Properties": 5}
"""Of a character, of an item with a comma (``1,``), of a property (``"":1,``)."""
_UPPER = {f"max{name}": size for name, size in _LEAST_BYTES.items()}
_LOWER = {f"min{name}": size for name, size in _LEAST_BYTES.items()}
_MAX_DIGITS = 18
# A class that nothing ends goes to the end: looked for again behind each bracket, it would cost the
# square of the length.
_COUNTED = re.compile(r"\\.|\[(?:\\.|[^\]\\])*+\]?|\{(?P<least>\d++),(?P<most>\d++)\}|.", re.DOTALL)


def within_reach(spec: GrammarSpec, max_bytes: int) -> GrammarSpec:
    """The grammar without upper bounds that no answer of ``max_bytes`` can come to: the lengths
    and counts of schemas, ``{m,n}`` of regexes. ``RequestError`` names a lower bound of a schema
    beyond that. O(length of the text)."""
    if spec.kind == "regex":
        text = _regex(spec.text, max_bytes)
    elif spec.kind in ("json_schema", "structural_tag"):
        document = json.loads(spec.text)
        reach = _Reach(max_bytes)
        kept = reach.schema(document) if spec.kind == "json_schema" else reach.tag(document)
        text = spec.text if kept == document else json.dumps(kept, ensure_ascii=False)
    else:
        return spec
    return spec if text == spec.text else msgspec.structs.replace(spec, text=text)


class _Reach:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def schema(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.schema(each) for each in node]
        if not isinstance(node, Mapping):
            return node
        return {
            key: self._value(key, value) for key, value in node.items() if self._binds(key, value)
        }

    def tag(self, node: Any) -> Any:
        """A structural tag, and the schemas and regexes in it."""
        if isinstance(node, list):
            return [self.tag(each) for each in node]
        if not isinstance(node, Mapping):
            return node
        result = {}
        for key, value in node.items():
            if key in ("json_schema", "schema"):
                result[key] = self.schema(value)
            elif key == "pattern" and isinstance(value, str):
                result[key] = _regex(value, self._max_bytes)
            else:
                result[key] = self.tag(value)
        return result

    def _value(self, key: str, value: Any) -> Any:
        if key in DATA:
            return value
        if key in MAPS and isinstance(value, Mapping):
            return {name: self.schema(each) for name, each in value.items()}
        if key == "pattern" and isinstance(value, str):
            return _regex(value, self._max_bytes)
        return self.schema(value)

    def _binds(self, key: str, value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return True
        if key in _LOWER and value * _LOWER[key] > self._max_bytes:
            raise RequestError(
                f"structured_outputs: {key} {value} is more than any answer can have here, which "
                f"has {self._max_bytes} bytes at the most",
                "structured_outputs",
            )
        return key not in _UPPER or value * _UPPER[key] < self._max_bytes


def _regex(pattern: str, max_bytes: int) -> str:
    def bounded(match: re.Match[str]) -> str:
        most = match["most"]
        if most is None or (len(most) <= _MAX_DIGITS and int(most) < max_bytes):
            return match[0]
        return "{" + match["least"] + ",}"

    return _COUNTED.sub(bounded, pattern)
