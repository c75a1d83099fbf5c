"""Where an output stands in its JSON: at the same place where the same may come behind it.

White space is as good as any other of its length, and none at all once something else follows.
Where no keyword looks at numbers their digits do not matter, and a string in which any text may
stand is as good as any other. What is left of a text names its place.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SPACE, _QUOTE, _BACKSLASH, _ZERO = b' "\\0'
_SPACES = frozenset(b" \n\r\t")
_DIGITS = frozenset(b"0123456789")
_ANY_TEXT = b'\x00"'
"""The text and the end of a free string. JSON itself has no such character."""
MAX_NAME_BYTES = 1024
"""A longer output comes to places that others seldom see."""
_MAX_STRING_BYTES = 24
_LOOKS_AT_NUMBERS = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)


@dataclass(frozen=True, slots=True)
class JsonPlace:
    """``text``: what is left of the output. ``start``: where in it the string begins that is
    under way, -1 outside of strings. ``is_escaped``: whether its last character was a backslash
    that begins an escape. ``is_free``: whether any text may stand in that string."""

    text: bytes = b""
    start: int = -1
    is_escaped: bool = False
    is_free: bool = False


class JsonPlaces:
    """The places of one schema."""

    first = JsonPlace()

    def __init__(self, schema: Any) -> None:
        self._has_free_numbers = not looks_at_numbers(schema)
        written = [json.dumps(each, ensure_ascii=False)[1:-1] for each in _texts(schema)]
        encoded = (each.encode(errors="replace") for each in written)
        self._long_texts = sorted(text for text in encoded if len(text) > _MAX_STRING_BYTES)

    def is_common(self, place: JsonPlace) -> bool:
        """Whether other outputs may well come to a place: not far from the beginning, and of a
        string that has to be told from others only if it begins so in the schema."""
        if len(place.text) > MAX_NAME_BYTES:
            return False
        if place.is_free or place.start < 0:
            return True
        content = place.text[place.start :]
        if len(content) <= _MAX_STRING_BYTES:
            return True
        index = bisect_left(self._long_texts, content)
        return index < len(self._long_texts) and self._long_texts[index].startswith(content)

    def freed(self, place: JsonPlace) -> JsonPlace | None:
        """The place, if its string is seen to be free; None outside of strings."""
        if place.start < 0:
            return None
        return JsonPlace(place.text[: place.start], place.start, is_free=True)

    def after(self, place: JsonPlace, token: bytes) -> JsonPlace:
        """The place behind a token that the grammar allows."""
        text, start = bytearray(place.text), place.start
        is_escaped, is_free = place.is_escaped, place.is_free
        for byte in token:
            if start < 0:
                self._add_outside(text, byte)
                start = len(text) if byte == _QUOTE else -1
                continue
            text.append(byte)
            if is_escaped:
                is_escaped = False
            elif byte == _BACKSLASH:
                is_escaped = True
            elif byte == _QUOTE:
                if is_free:
                    text[start:] = _ANY_TEXT
                start, is_free = -1, False
        if is_free:
            text[start:] = _incomplete(text[start:], is_escaped)
        result = JsonPlace(bytes(text), start, is_escaped, is_free)
        return place if result == place else result

    def _add_outside(self, text: bytearray, byte: int) -> None:
        if byte in _SPACES:
            text.append(_SPACE)
            return
        while text and text[-1] == _SPACE:
            text.pop()
        if byte in _DIGITS and self._has_free_numbers:
            if text and text[-1] in _DIGITS:
                if text[-1] != _ZERO:
                    return
            elif byte != _ZERO or _is_behind_point_or_exponent(text):
                byte = _ZERO + 1
        text.append(byte)


def _is_behind_point_or_exponent(text: bytes | bytearray) -> bool:
    """Whether a digit here is the first of a fraction or an exponent, where 0 is one as others."""
    return text[-1:] in (b".", b"e", b"E") or text[-2:] in (b"e+", b"e-", b"E+", b"E-")


def _incomplete(content: bytes | bytearray, is_escaped: bool) -> bytes:
    """What a string ends with that is no whole character."""
    if is_escaped:
        return b"\\"
    for size in range(1, min(4, len(content) + 1)):
        byte = content[-size]
        if byte < 0x80:
            return b""
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return bytes(content[-size:]) if size < needed else b""
    return b""


def _texts(node: Any) -> Iterator[str]:
    """Every text and every name in a schema."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        yield from node
        yield from _texts(list(node.values()))
    elif isinstance(node, list):
        for each in node:
            yield from _texts(each)


def looks_at_numbers(node: Any) -> bool:
    """Whether a keyword of a schema, or something called so, looks at the digits of numbers."""
    if isinstance(node, list):
        return any(map(looks_at_numbers, node))
    if not isinstance(node, Mapping):
        return False
    if not _LOOKS_AT_NUMBERS.isdisjoint(node):
        return True
    values = [node[key] for key in ("enum", "const") if key in node]
    return _has_numbers(values) or any(map(looks_at_numbers, node.values()))


def _has_numbers(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_numbers, value.values()))
    if isinstance(value, list):
        return any(map(_has_numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)
