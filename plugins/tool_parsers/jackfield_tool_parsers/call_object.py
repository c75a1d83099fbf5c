"""The JSON object of one call, ``{"name": ..., "arguments": {...}}``, as its text arrives."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import IntEnum

from jackfield_tool_parsers.json_scanner import JsonScanner

_SPACES = " \t\n\r"
_ARGUMENTS = ("arguments", "parameters")


class _State(IntEnum):
    OPEN = 0
    FIRST_KEY = 1
    KEY = 2
    KEY_TEXT = 3
    COLON = 4
    VALUE = 5
    VALUE_TEXT = 6
    NEXT = 7
    ENDED = 8
    FAILED = 9


class CallObject:
    """Reads one object, its keys in any order; those but the name and the arguments are
    skipped. Arguments that are an object stream; a string that holds one is unpacked when it
    is complete; none or null are ``{}``; anything else fails."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._state = _State.OPEN
        self._key = ""
        self._part = JsonScanner()
        self._arguments: JsonScanner | None = None
        self._unpacked = ""
        self._steps: tuple[Callable[[str, int], int], ...] = (
            self._open,
            self._next_key,
            self._next_key,
            self._key_text,
            self._colon,
            self._value,
            self._value_text,
            self._next,
        )

    @property
    def ended(self) -> bool:
        """Whether the object is complete; it has a name then."""
        return self._state is _State.ENDED

    @property
    def failed(self) -> bool:
        """Whether the text is no call."""
        return self._state is _State.FAILED

    @property
    def started(self) -> bool:
        """Whether the name is known and the arguments can stream."""
        return self.name is not None and (
            self._arguments is not None or self._unpacked != "" or self.ended
        )

    def scan(self, text: str, at: int) -> int:
        """Takes text from ``at`` on; returns the index behind what was taken. Stops where the
        call starts, so that what fails later fails a call that has started, however the text is
        split."""
        end = len(text)
        starting = not self.started
        while at < end and self._state < _State.ENDED and not (starting and self.started):
            if text[at] in _SPACES and self._state not in (_State.KEY_TEXT, _State.VALUE_TEXT):
                at += 1
            else:
                at = self._steps[self._state](text, at)
        return at

    def take(self) -> str:
        """The arguments that can be passed on now."""
        if self._arguments is not None:
            return self._arguments.take()
        text, self._unpacked = self._unpacked, ""
        return text

    def closing(self, taken: bool) -> str:
        """What makes the arguments complete; ``taken``: some were passed on."""
        if self._arguments is not None:
            return "" if self._arguments.done else self._arguments.closing()
        return "" if taken else "{}"

    def held(self) -> str:
        """Text of the arguments that was taken but never passed on."""
        return "" if self._arguments is None else self._arguments.held()

    # --- steps, at a character that is no space outside of strings -----------------------

    def _fail(self, at: int) -> int:
        self._state = _State.FAILED
        return at

    def _open(self, text: str, at: int) -> int:
        if text[at] != "{":
            return self._fail(at)
        self._state = _State.FIRST_KEY
        return at + 1

    def _next_key(self, text: str, at: int) -> int:
        if text[at] == "}" and self._state is _State.FIRST_KEY:
            return self._end(at)
        if text[at] != '"':
            return self._fail(at)
        self._part = JsonScanner()
        self._state = _State.KEY_TEXT
        return at

    def _key_text(self, text: str, at: int) -> int:
        at = self._part.scan(text, at)
        if self._part.failed:
            return self._fail(at)
        if self._part.done:
            self._key = json.loads(self._part.take())
            self._state = _State.COLON
        return at

    def _colon(self, text: str, at: int) -> int:
        if text[at] != ":":
            return self._fail(at)
        self._state = _State.VALUE
        return at + 1

    def _value(self, text: str, at: int) -> int:
        self._part = JsonScanner()
        self._state = _State.VALUE_TEXT
        if self._is_arguments() and text[at] == "{":
            self._arguments = self._part
        return at

    def _is_arguments(self) -> bool:
        return self._key in _ARGUMENTS and self._arguments is None and not self._unpacked

    def _value_text(self, text: str, at: int) -> int:
        part = self._part
        at = part.scan(text, at)
        if part.failed:
            return self._fail(at)
        streams = part is self._arguments
        needed = self._is_arguments() or (self._key == "name" and self.name is None)
        if not streams and not needed:
            part.take()
        if part.done:
            self._state = _State.NEXT
            if not streams and needed and not self._keep(part.take()):
                return self._fail(at)
        return at

    def _keep(self, text: str) -> bool:
        """Keeps a complete name, or arguments that did not stream; false if they are none."""
        if text[0] != '"':
            return text == "null" and self._key != "name"
        value: str = json.loads(text)
        if not _is_unicode(value):
            return False
        if self._key == "name":
            self.name = value or None
            return bool(value)
        inner = JsonScanner()
        end = inner.scan(value)
        self._unpacked = inner.take().strip(_SPACES)
        return inner.done and self._unpacked[0] == "{" and not value[end:].strip(_SPACES)

    def _next(self, text: str, at: int) -> int:
        if text[at] == "}":
            return self._end(at)
        if text[at] != ",":
            return self._fail(at)
        self._state = _State.KEY
        return at + 1

    def _end(self, at: int) -> int:
        if self.name is None:
            return self._fail(at)
        self._state = _State.ENDED
        return at + 1


def _is_unicode(text: str) -> bool:
    """Whether there is no half of a surrogate pair, which nobody downstream could encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
