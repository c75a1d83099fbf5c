"""How large a value a chat template may build in one step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2.exceptions import SecurityError

MAX_CHARACTERS = 8 << 20
"""Of any string, and of the whole output."""
MAX_ITEMS = 1 << 20
"""Of any container, those in its containers included."""
_MAX_BITS = 4096
_MAX_BUILT = 256 << 20
# A field of five digits or more, or one whose width is an argument.
_WIDE_PERCENT = re.compile(r"%[-+ #0]*(?:\*|\d{5}|\d*\.(?:\*|\d{5}))")
_WIDE_BRACES = re.compile(r"\{[^{}]*[:!][^{}]*(?:\{|\d{5})")
_CONTAINERS = (list, tuple, dict, set, frozenset)


class LimitError(SecurityError):
    """The template wanted more than it may have; the message completes "the chat template was
    stopped: "."""


class Weights:
    """What one rendering has built: characters in all, and the sizes of nested containers, each
    measured once however often it is looked at.

    Containers are remembered by identity and kept alive, which holds because nothing in the
    sandbox changes a container once it is made.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, int]] = {}
        self._built = 0

    def built(self, characters: int) -> None:
        """``LimitError`` if a string is too long, or all strings together are."""
        self._built += characters
        if characters > MAX_CHARACTERS or self._built > _MAX_BUILT:
            raise LimitError(f"it built strings of more than {MAX_CHARACTERS} characters")

    def check(self, value: object) -> None:
        """``LimitError`` if ``value`` holds more than ``MAX_ITEMS`` values, or that many
        characters."""
        if isinstance(value, _CONTAINERS):
            self._weight(value, 0)

    def _weight(self, value: object, depth: int) -> int:
        if isinstance(value, str | bytes):
            return 1 + len(value) // 8
        if not isinstance(value, _CONTAINERS):
            return 1
        known = self._known.get(id(value))
        if known is not None:
            return known[1]
        if depth > 200:
            raise LimitError("it nested values more than 200 deep")
        weight = 1
        for item in value:
            weight += self._weight(item, depth + 1)
            if isinstance(value, dict):
                weight += self._weight(value[item], depth + 1)
            if weight > MAX_ITEMS:
                raise LimitError(f"it built a value of more than {MAX_ITEMS} items")
        self._known[id(value)] = (value, weight)
        return weight


def check_result(value: Any, weights: Weights) -> Any:
    """The value, if it is not too large."""
    if isinstance(value, str | bytes):
        weights.built(len(value))
    elif isinstance(value, _CONTAINERS):
        weights.check(value)
    return value


def _check_size(size: int) -> None:
    if size > MAX_CHARACTERS:
        raise LimitError(f"it asked for {size} characters")


def check_binary(operator: str, left: Any, right: Any, weights: Weights) -> None:
    """Before ``+ * ** %``."""
    if operator == "%":
        if isinstance(left, str | bytes):
            _check_format(left, _WIDE_PERCENT, (right,), {}, weights)
    elif isinstance(left, int) and isinstance(right, int):
        _check_number(operator, left, right)
    elif operator == "*":
        for sequence, count in ((left, right), (right, left)):
            if isinstance(sequence, str | bytes | list | tuple) and isinstance(count, int):
                _check_size(len(sequence) * count)
    elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        _check_size(len(left) + len(right))


def _check_number(operator: str, left: int, right: int) -> None:
    bits = left.bit_length() + right.bit_length() if operator == "*" else 0
    if operator == "**":
        bits = left.bit_length() * abs(right)
    if bits > _MAX_BITS:
        raise LimitError(f"it built a number of more than {_MAX_BITS} bits")


def _check_format(
    text: str | bytes,
    wide: re.Pattern[str],
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
    weights: Weights,
) -> None:
    """A format string may not ask for wide fields, nor put a long argument in too often."""
    written = text.decode("latin-1") if isinstance(text, bytes) else text
    if wide.search(written):
        raise LimitError("it used a format with a field that is too wide")
    longest = 0
    for value in (*args, *kwargs.values()):
        weights.check(value)
        parts = value.values() if isinstance(value, dict) else value
        for part in (
            parts if isinstance(parts, Iterable) and not isinstance(parts, str) else [value]
        ):
            longest = max(longest, len(part) if isinstance(part, str | bytes) else 0)
    _check_size(len(written) + longest * (written.count("{") + written.count("%")))


def check_method(
    function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], weights: Weights
) -> None:
    """Before a call of a method of str or bytes that can build more than it was given."""
    name = getattr(function, "__name__", "")
    if name in ("format", "format_map"):
        text = getattr(getattr(function, "__wrapped__", None), "__self__", None)
        if isinstance(text, str):
            _check_format(text, _WIDE_BRACES, args, kwargs, weights)
        return
    text = getattr(function, "__self__", None)
    check = _METHODS.get(name)
    if check is not None and isinstance(text, str | bytes | int):
        check(text, args, kwargs)


def check_filter(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], weights: Weights
) -> None:
    """Before a filter, with the arguments that the template gave it."""
    for value in (*args, *kwargs.values()):
        weights.check(value)
    if name == "format" and args and isinstance(args[0], str):
        _check_format(args[0], _WIDE_PERCENT, args[1:], kwargs, weights)
    elif name in _FILTERS:
        _FILTERS[name](args[0] if args else "", args[1:], kwargs)


Check = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], None]


def _numbers(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[int]:
    return [abs(value) for value in (*args, *kwargs.values()) if isinstance(value, int)]


def _check_width(text: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    _check_size(max(_numbers(args, kwargs), default=0))


def _check_count(text: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if max(_numbers(args, kwargs), default=0) > MAX_ITEMS:
        raise LimitError(f"it asked for more than {MAX_ITEMS} items")


def _check_lines(text: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Something is put in many times: as often as there are characters at most."""
    lengths = [len(value) for value in (*args, *kwargs.values()) if isinstance(value, str | bytes)]
    each = max([*lengths, *_numbers(args, kwargs), 1])
    size = len(text) if isinstance(text, str | bytes) else 1
    if size * each > MAX_CHARACTERS:
        breaks = text.count("\n") + text.count("\t") + 1 if isinstance(text, str) else size
        _check_size(breaks * each)


def _check_replace(text: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    old, new = (args + tuple(kwargs.values()))[:2] if len(args) + len(kwargs) > 1 else ("", "")
    if (
        isinstance(text, str | bytes)
        and isinstance(old, type(text))
        and isinstance(new, type(text))
    ):
        _check_size(len(text) + text.count(old) * len(new))  # type: ignore[arg-type]


def _check_str_join(text: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if args and isinstance(text, str | bytes):
        _check_join(args[0], (text,), {})


def _check_join(items: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    separator = next((a for a in (*args, *kwargs.values()) if isinstance(a, str | bytes)), "")
    if isinstance(items, str | bytes):
        _check_size(len(items) * (1 + len(separator)))
    elif isinstance(items, _CONTAINERS):
        lengths = sum(len(item) for item in items if isinstance(item, str | bytes))
        _check_size(lengths + len(items) * len(separator))


_METHODS: dict[str, Check] = {
    **dict.fromkeys(("ljust", "rjust", "center", "zfill", "to_bytes"), _check_width),
    "expandtabs": _check_lines,
    "replace": _check_replace,
    "join": _check_str_join,
}
_FILTERS: dict[str, Check] = {
    **dict.fromkeys(("center", "truncate"), _check_width),
    **dict.fromkeys(("slice", "batch", "round"), _check_count),
    **dict.fromkeys(("indent", "wordwrap"), _check_lines),
    "replace": _check_replace,
    "join": _check_join,
}
