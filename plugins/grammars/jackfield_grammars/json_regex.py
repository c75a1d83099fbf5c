"""A regex for strings, as a regex for the JSON text of strings: quotes and the like are escaped.

A ``pattern`` of a schema is about the string that the JSON text stands for. xgrammar matches text;
so every piece of the regex is written as the text of what it matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from jackfield.errors import RequestError

Refusal = Callable[[str], RequestError]

_PIECE = re.compile(r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\.|\[(?:\\.|[^\]\\])*\]|.", re.DOTALL)
"""An escape, a class or a character of a regex."""

_CODE = re.compile(r"\\[ux]([0-9a-fA-F]+)")
_FIRST_CARET = re.compile(
    r"\[(?:(?:\\\^|\\u005[eE]|(?<!\[)\^)(?:-(?=[^\]]))?)+(\\u[0-9a-fA-F]{4}|\\.|[^\]])?"
)
_LETTER_ESCAPE = re.compile(r"\\[A-Za-z0-9]")
_KNOWN_ESCAPES = "dDwWsSnrtfvxu0"
_SYNTAX = frozenset("()|?*+{}")
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_WIDE = ("^", r"\W", r"\D", r"\S", r"\u", r"\x")
"""What a class has that may reach beyond ASCII."""

_BYTE_ORDER_MARK = "\ufeff"
"""White space in ECMA 262, on which JSON Schema's regexes are based; not in Python."""


def pieces(pattern: str) -> list[str]:
    """A regex taken apart."""
    found: list[str] = _PIECE.findall(pattern)
    return found


def without_anchors(parts: Sequence[str], refusal: Refusal) -> Iterator[str]:
    """The pieces without ``^`` and ``$``, which may only stand where a whole text has its ends;
    raises for those elsewhere, and for escapes that mean something else to everybody."""
    depth, last = 0, len(parts) - 1
    for index, part in enumerate(parts):
        depth += (part == "(") - (part == ")")
        if part == "^":
            if depth or (index and parts[index - 1] != "|"):
                raise refusal("'^' inside a regex")
        elif part == "$":
            if depth or (index < last and parts[index + 1] != "|"):
                raise refusal("'$' inside a regex")
        elif _LETTER_ESCAPE.match(part) and part[1] not in _KNOWN_ESCAPES:
            raise refusal(f"{part} in a regex")
        else:
            yield part


def without_first_caret(part: str) -> str:
    """A class that xgrammar does not take for a negated one: where a caret, escaped or not, is its
    first character, the first other one stands before it once more."""
    found = _FIRST_CARET.match(part)
    if found is None:
        return part
    return f"[{found[1]}{part[1:]}" if found[1] else r"\^"


def json_text_regex(pattern: object, refusal: Refusal) -> str:
    """The regex of the JSON texts, quotes included, of strings that match as a whole."""
    if not isinstance(pattern, str):
        raise refusal("a pattern that is no text")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise refusal(f"the pattern {pattern[:80]!r} ({error})") from None
    parts = pieces(pattern)
    if "(" in parts and any(
        part == "(" and following == "?" and after != ":"
        for part, following, after in zip(parts, parts[1:], parts[2:], strict=False)
    ):
        raise refusal(f"a look-around or a named group in the pattern {pattern[:80]!r}")
    texts = list(map(_as_text, _outside_braces(parts, refusal)))
    if "()" in texts:
        raise refusal(
            f"a class of which no character can be written in the pattern {pattern[:80]!r}"
        )
    return '"(' + "".join(texts) + ')"'


def _outside_braces(parts: Sequence[str], refusal: Refusal) -> Iterator[str]:
    """The pieces; a counted repetition is one piece of its own."""
    counted = ""
    for part in without_anchors(parts, refusal):
        if counted or part == "{":
            counted += part
            if part == "}":
                yield counted
                counted = ""
        else:
            yield part
    yield counted


def _as_text(part: str) -> str:
    if not part or part in _SYNTAX or (part[0] == "{" and len(part) > 1):
        return part
    if part == ".":
        return _text_class(r"[^\n]")
    if part[0] == "[" and len(part) > 1:
        return _text_class(part)
    if part[0] == "\\" and part[1] in "dDwWsS":
        return _text_class(f"[{part}]")
    code = _CODE.fullmatch(part)
    if code:
        return _text_of(chr(int(code[1], 16)))
    if part[0] == "\\":
        return _text_of(_CONTROLS.get(part[1], part[1]))
    return _text_of(part)


def _text_of(character: str) -> str:
    """A regex for the JSON text of one character."""
    if character in _SHORT:
        return "(" + "".join(map(_quoted, _SHORT[character])) + ")"
    if character < " ":
        return "(" + "".join(map(_quoted, f"\\u{ord(character):04x}")) + ")"
    return _quoted(character)


def _quoted(character: str) -> str:
    return f"\\{character}" if character in r"\^$.|?*+()[]{}/-" else character


@cache
def _text_class(part: str) -> str:
    """A class as alternatives: its plain characters, then those that JSON escapes. Characters
    beyond the first plane are left out."""
    plain: list[int] = []
    escaped: list[str] = []
    matches = re.compile(part).fullmatch
    is_wide = not part.isascii() or any(mark in part for mark in _WIDE)
    spaces = r"\S" in part
    for code in range(0x10000 if is_wide else 0x80):
        character = chr(code)
        if 0xD800 <= code < 0xE000 or not matches(character):
            continue
        if code >= 0x80 and not _is_ecma(part, character):
            continue
        if character in _SHORT:
            escaped.append(_text_of(character))
        elif code >= 0x20 and not (spaces and character == _BYTE_ORDER_MARK):
            plain.append(code)
    listed = "".join(_range(first, last) for first, last in _ranges(plain))
    alternatives = [without_first_caret(f"[{listed}]")] if listed else []
    return "(" + "|".join([*alternatives, *escaped]) + ")"


def _is_ecma(part: str, character: str) -> bool:
    """Whether a character beyond ASCII is in a class as ECMA 262 has it: digits and word
    characters are ASCII there."""
    return re.compile(part, re.ASCII).fullmatch(character) is not None or (
        "\\s" in part and character.isspace()
    )


def _ranges(codes: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = -2
    for code in codes:
        if code != last + 1:
            if first >= 0:
                yield first, last
            first = code
        last = code
    if first >= 0:
        yield first, last


def _range(first: int, last: int) -> str:
    return _in_class(first) if first == last else f"{_in_class(first)}-{_in_class(last)}"


def _in_class(code: int) -> str:
    character = chr(code)
    if 0x20 <= code < 0x7F:
        return f"\\{character}" if character in r"\]^-[" else character
    return f"\\u{code:04x}"
