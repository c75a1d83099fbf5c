"""Look-aheads at the beginning of a pattern, and what must not be its last character, as patterns
of their own that hold beside it.

llguidance has no look-around. What ``^(?=...)`` asks for is a pattern; what ``^(?!...)`` forbids
is turned round where that is simple: a text, or a text at the end, two equal characters, nothing
but characters of a class. What comes out may match less, never more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jackfield_grammars.json_regex import pieces

_SURROGATES = re.compile(
    r"(?<!-)\\u[dD][89a-fA-F][0-9a-fA-F]{2}(?:-\\u[dD][89a-fA-F][0-9a-fA-F]{2})?(?!-)"
)
_NOTHING_FOLLOWS = r"(?![\s\S])"
_SYNTAX = "^$*+?()|{}.[]\\"
_ANYTHING = r"[\s\S]*"


def without_look_aheads(pattern: str) -> list[str]:
    """Patterns that all hold where the pattern does; the pattern itself where it has no
    look-ahead, or one that cannot be turned round."""
    pattern = pattern.replace(_NOTHING_FOLLOWS, "$")
    parts = [_SURROGATES.sub("", p) if p[0] == "[" and len(p) > 1 else p for p in pieces(pattern)]
    found: list[str] = []
    if parts[-7:-3] == ["(", "?", "<", "!"] and parts[-2:] == [")", "$"]:
        last = _not_inside(parts[-3:-2], at_end=True)
        if last is not None and not _has_alternatives(parts):
            parts, found = [*parts[:-7], "$"], [last]
    place = 1 if parts[:1] == ["^"] else 0
    is_anchored = place == 1
    while parts[place : place + 3] in (["(", "?", "="], ["(", "?", "!"]):
        end = _closing(parts, place)
        inside = parts[place + 3 : end]
        is_anchored = is_anchored or inside[:1] == ["^"]
        inside = inside[1:] if inside[:1] == ["^"] else inside
        made = _asking(inside) if parts[place + 2] == "=" else _forbidding(inside)
        if made is None or not is_anchored:
            return [pattern]
        found.append(made)
        place = end + 1
    rest = parts[place:]
    if _has_alternatives(rest):
        return [pattern] if found else ["".join(parts)]
    starts = parts[:place] if place == is_anchored else ["^"]
    return ["".join([*(() if rest[:1] == ["^"] else starts), *rest]), *found]


def _asking(parts: Sequence[str]) -> str:
    """A pattern of the texts that begin so."""
    if parts[-1:] == ["$"]:
        return f"^(?:{''.join(parts[:-1])})$"
    return f"^(?:{''.join(parts)})"


def _has_alternatives(parts: Sequence[str]) -> bool:
    """Whether a pattern is several side by side, of which look-aheads belong to the first."""
    depth = 0
    for part in parts:
        depth += (part == "(") - (part == ")")
        if part == "|" and not depth:
            return True
    return False


def _closing(parts: Sequence[str], place: int) -> int:
    """Where a parenthesis is closed."""
    depth = 0
    for index in range(place, len(parts)):
        depth += (parts[index] == "(") - (parts[index] == ")")
        if not depth:
            return index
    return len(parts)


def _forbidding(parts: Sequence[str]) -> str | None:
    """A pattern of the texts that do not begin so."""
    parts = list(parts)
    if parts == [r"\s", "*", "$"]:
        return r"\S"
    if len(parts) == 3 and parts[1:] == ["+", "$"] and _is_class(parts[0]):
        return f"(^$|{_others(parts[0])})"
    at_end = parts[-1:] == ["$"]
    parts = parts[:-1] if at_end else parts
    if parts[:2] == [".", "*"]:
        return _not_inside(parts[2:], at_end)
    if parts[-2:] == [".", "*"]:
        # Behind the text anything may come but a line feed: forbidding more is allowed.
        parts, at_end = parts[:-2], False
    characters = [_character(each) for each in parts]
    if not characters or None in characters:
        return None
    return _not_beginning([each for each in characters if each], at_end)


def _not_inside(parts: Sequence[str], at_end: bool) -> str | None:
    """Texts without two of a character behind each other, or that do not end with one."""
    character = _character(parts[0]) if parts else None
    if character is None:
        return None
    if at_end and len(parts) == 1:
        return rf"^({_ANYTHING}[^{character}])?$"
    if not at_end and list(parts[1:]) in (["{", "2", "}"], [parts[0]]):
        return f"^({character}?[^{character}])*{character}?$"
    return None


def _not_beginning(characters: Sequence[str], at_end: bool) -> str:
    """Texts that do not begin with a text, or are not that text."""
    inner = rf"[\s\S]{_ANYTHING}" if at_end else ""
    for place in range(len(characters) - 1, -1, -1):
        each = characters[place]
        is_last = place == len(characters) - 1 and not at_end
        goes_on = "" if is_last else f"|{each}({inner})"
        inner = f"|[^{each}]{_ANYTHING}{goes_on}"
    return f"^({inner})$"


def _character(part: str) -> str | None:
    """A piece that stands for one character, as it is written inside and outside of a class."""
    is_quoted = (len(part) == 3 and part[0] == "[") or (
        len(part) == 2 and part[0] == "\\" and not part[1].isalnum()
    )
    character = part[1] if is_quoted else part
    if len(character) != 1 or (not is_quoted and character in _SYNTAX):
        return None
    return f"\\{character}" if character in _SYNTAX or character == "-" else character


def _is_class(part: str) -> bool:
    return part[0] == "[" and len(part) > 2 and part[1] != "^"


def _others(part: str) -> str:
    return f"[^{part[1:]}"
