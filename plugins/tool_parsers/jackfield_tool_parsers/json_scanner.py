"""One JSON value, found and checked as its text arrives.

The scanner passes text on only up to a point from which a few characters make it valid JSON, so
that a value that breaks off can be closed: keys and separators wait for the value that follows,
escapes until they are whole. Every character is looked at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum

MAX_DEPTH = 128

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(r"[0-9]*")
_RAW_CONTROL = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
_CLOSING = {"{": "}", "[": "]"}


class _State(IntEnum):
    VALUE = 0
    FIRST_ITEM = 1  # a value, or the end of an empty array
    FIRST_KEY = 2  # a key, or the end of an empty object
    KEY = 3
    COLON = 4
    NEXT = 5  # a comma or the end of the container
    STRING = 6
    ESCAPE = 7
    UNICODE = 8
    LITERAL = 9
    NUMBER = 10
    DONE = 11
    FAILED = 12


class _Number(IntEnum):
    """Part of a number that was read last; the odd ones may end it."""

    MINUS = 0
    ZERO = 1
    POINT = 2
    INTEGER = 3
    EXPONENT = 4
    FRACTION = 5
    SIGN = 6
    POWER = 7


class JsonScanner:
    """Scans one value. ``done`` and ``failed`` are final; neither: more text is needed.

    Raw control characters in strings, which models write though JSON forbids them, are passed
    on as escapes; everything else is passed on as it came.
    """

    def __init__(self) -> None:
        self._state = _State.VALUE
        self._failed_in = _State.VALUE
        self._stack: list[str] = []
        self._safe: list[str] = []
        self._pending: list[str] = []
        self._is_key = False
        self._number = _Number.MINUS
        self._literal = ""
        self._hex = ""
        self._high_surrogate = False
        self._steps: tuple[Callable[[str, int], int], ...] = (
            self._value,
            self._first_item,
            self._first_key,
            self._key,
            self._colon,
            self._next,
            self._string,
            self._escape,
            self._unicode,
            self._literal_rest,
            self._number_rest,
        )

    @property
    def done(self) -> bool:
        """Whether the value is complete."""
        return self._state is _State.DONE

    @property
    def failed(self) -> bool:
        """Whether the text is no JSON."""
        return self._state is _State.FAILED

    @property
    def in_inner_string(self) -> bool:
        """Whether the text so far ends within a string of an object or an array."""
        return bool(self._stack) and _State.STRING <= self._state <= _State.UNICODE

    @property
    def begun(self) -> bool:
        """Whether anything but whitespace was seen."""
        return self._state is not _State.VALUE or bool(self._stack)

    def scan(self, text: str, at: int = 0) -> int:
        """Takes text from ``at`` on; returns the index behind what was taken: the end of the
        text, of the value, or the character that is wrong."""
        end = len(text)
        while at < end and self._state < _State.DONE:
            at = self._steps[self._state](text, at)
        return at

    def take(self) -> str:
        """What can be passed on now."""
        if not self._safe:
            return ""
        text = "".join(self._safe)
        self._safe.clear()
        return text

    def held(self) -> str:
        """What was taken but cannot be passed on unless more comes."""
        return "".join(self._pending)

    def closing(self) -> str:
        """What makes all text passed on a complete value, if any was."""
        state = self._failed_in if self.failed else self._state
        in_string = _State.STRING <= state <= _State.UNICODE and not self._is_key
        brackets = "".join(_CLOSING[bracket] for bracket in reversed(self._stack))
        return ('"' if in_string else "") + brackets

    # --- passing on ------------------------------------------------------------------

    def _hold(self, text: str) -> None:
        self._pending.append(text)

    def _pass(self, text: str) -> None:
        """The text, and what was held before it, is safe; inside a key it is not."""
        if self._is_key:
            self._pending.append(text)
            return
        if self._pending:
            self._safe.extend(self._pending)
            self._pending.clear()
        self._safe.append(text)

    # --- steps: each takes at least one character or changes the state ----------------

    def _skip_space(self, text: str, at: int) -> int:
        match = _SPACE.match(text, at)
        assert match is not None
        if match.end() > at:
            self._hold(match[0])
        return match.end()

    def _fail(self, at: int) -> int:
        self._failed_in = self._state
        self._state = _State.FAILED
        return at

    def _value(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at == len(text):
            return at
        character = text[at]
        if character in "{[":
            return self._open(character, at)
        if character == '"':
            self._state = _State.STRING
            self._pass('"')
        elif character in "-0123456789":
            return self._begin_number(character, at)
        elif character in "tfn":
            self._literal = {"t": "true", "f": "false", "n": "null"}[character][1:]
            self._state = _State.LITERAL
            self._hold(character)
        else:
            return self._fail(at)
        return at + 1

    def _open(self, bracket: str, at: int) -> int:
        if len(self._stack) == MAX_DEPTH:
            return self._fail(at)
        self._stack.append(bracket)
        self._state = _State.FIRST_KEY if bracket == "{" else _State.FIRST_ITEM
        self._pass(bracket)
        return at + 1

    def _close(self, bracket: str, at: int) -> int:
        if not self._stack or _CLOSING[self._stack[-1]] != bracket:
            return self._fail(at)
        self._stack.pop()
        self._pass(bracket)
        self._value_ended()
        return at + 1

    def _value_ended(self) -> None:
        self._state = _State.NEXT if self._stack else _State.DONE

    def _first_item(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at == len(text):
            return at
        if text[at] == "]":
            return self._close("]", at)
        return self._value(text, at)

    def _first_key(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at == len(text):
            return at
        if text[at] == "}":
            return self._close("}", at)
        return self._key(text, at)

    def _key(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at == len(text):
            return at
        if text[at] != '"':
            return self._fail(at)
        self._is_key = True
        self._state = _State.STRING
        self._hold('"')
        return at + 1

    def _colon(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at == len(text):
            return at
        if text[at] != ":":
            return self._fail(at)
        self._hold(":")
        self._state = _State.VALUE
        return at + 1

    def _next(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at == len(text):
            return at
        if text[at] != ",":
            return self._close(text[at], at) if text[at] in "]}" else self._fail(at)
        self._hold(",")
        self._state = _State.KEY if self._stack[-1] == "{" else _State.VALUE
        return at + 1

    # --- strings ---------------------------------------------------------------------

    def _string(self, text: str, at: int) -> int:
        match = _PLAIN.match(text, at)
        assert match is not None
        end = match.end()
        if end > at:
            self._pass(match[0])
            self._high_surrogate = False
        if end == len(text):
            return end
        character = text[end]
        if character == "\\":
            self._state = _State.ESCAPE
            self._hold("\\")
        elif character == '"':
            self._end_string()
        else:
            self._pass(_RAW_CONTROL.get(character) or f"\\u{ord(character):04x}")
            self._high_surrogate = False
        return end + 1

    def _end_string(self) -> None:
        self._high_surrogate = False
        if self._is_key:
            self._is_key = False
            self._hold('"')
            self._state = _State.COLON
        else:
            self._pass('"')
            self._value_ended()

    def _escape(self, text: str, at: int) -> int:
        character = text[at]
        if character == "u":
            self._hex = ""
            self._state = _State.UNICODE
            self._hold("u")
        elif character in '"\\/bfnrt':
            self._state = _State.STRING
            self._high_surrogate = False
            self._pass(character)
        else:
            return self._fail(at)
        return at + 1

    def _unicode(self, text: str, at: int) -> int:
        character = text[at]
        if character not in "0123456789abcdefABCDEF":
            return self._fail(at)
        self._hex += character
        if len(self._hex) < 4:
            self._hold(character)
            return at + 1
        self._state = _State.STRING
        # Half a surrogate pair waits for its other half.
        self._high_surrogate = 0xD800 <= int(self._hex, 16) < 0xDC00 and not self._high_surrogate
        if self._high_surrogate:
            self._hold(character)
        else:
            self._pass(character)
        return at + 1

    # --- numbers and literals -----------------------------------------------------------

    def _literal_rest(self, text: str, at: int) -> int:
        if text[at] != self._literal[0]:
            return self._fail(at)
        self._literal = self._literal[1:]
        if self._literal:
            self._hold(text[at])
        else:
            self._pass(text[at])
            self._value_ended()
        return at + 1

    def _begin_number(self, character: str, at: int) -> int:
        self._state = _State.NUMBER
        if character == "-":
            self._number = _Number.MINUS
            self._hold(character)
        else:
            self._number = _Number.ZERO if character == "0" else _Number.INTEGER
            self._pass(character)
        return at + 1

    def _number_rest(self, text: str, at: int) -> int:
        character, part = text[at], self._number
        if "0" <= character <= "9":
            return self._number_digits(text, at)
        if character == "." and part in (_Number.ZERO, _Number.INTEGER):
            self._number = _Number.POINT
        elif character in "eE" and part in (_Number.ZERO, _Number.INTEGER, _Number.FRACTION):
            self._number = _Number.EXPONENT
        elif character in "+-" and part is _Number.EXPONENT:
            self._number = _Number.SIGN
        elif part % 2:
            self._value_ended()
            return at
        else:
            return self._fail(at)
        self._hold(character)
        return at + 1

    def _number_digits(self, text: str, at: int) -> int:
        part = self._number
        if part is _Number.ZERO:
            return self._fail(at)
        if part is _Number.MINUS:
            self._number = _Number.ZERO if text[at] == "0" else _Number.INTEGER
            self._pass(text[at])
            return at + 1
        if part is _Number.POINT:
            self._number = _Number.FRACTION
        elif part in (_Number.EXPONENT, _Number.SIGN):
            self._number = _Number.POWER
        match = _DIGITS.match(text, at)
        assert match is not None
        self._pass(match[0])
        return match.end()
