"""Look-aheads at the beginning of a pattern, and what must not be its last character, as patterns
of their own that hold beside it.

llguidance has no look-around. What ``^(?=...)`` asks for is a pattern; what ``^(?!...)`` forbids
is turned round where that is simple: a text, or a text at the end, a character or two equal ones,
nothing but characters of a class. What comes out may match less, never more.
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
_QUANTIFIERS = (["?"], ["*"], ["+"], ["{"])
_ESCAPES = {r"\s": r"\S", r"\d": r"\D", r"\w": r"\W"}


def without_look_aheads(pattern: str) -> list[str]:
    """Patterns that all hold where the pattern does; with the look-around itself where there is
    some that cannot be turned round. Of several side by side each has its own: what one asks for
    holds, or another matches."""
    pattern = pattern.replace(_NOTHING_FOLLOWS, "$")
    parts = [_SURROGATES.sub("", p) if p[0] == "[" and len(p) > 1 else p for p in pieces(pattern)]
    made = [_of_branch(branch) for branch in _branches(parts)]
    result = ["|".join(rest for rest, *_ in made)]
    for place, (_, *found) in enumerate(made):
        others = [rest for index, (rest, *_) in enumerate(made) if index != place]
        result += ["|".join([each, *others]) for each in found]
    return result


def _branches(parts: Sequence[str]) -> list[list[str]]:
    """The patterns that stand side by side in one."""
    found: list[list[str]] = [[]]
    depth = 0
    for part in parts:
        depth += (part == "(") - (part == ")")
        if part == "|" and not depth:
            found.append([])
        else:
            found[-1].append(part)
    return found


def _of_branch(given: list[str]) -> list[str]:
    """The rest of a pattern, and what its look-around asks for."""
    parts, found = given, list[str]()
    if parts[-7:-3] == ["(", "?", "<", "!"] and parts[-2:] == [")", "$"]:
        last = _not_inside(parts[-3:-2], at_end=True)
        if last is not None:
            parts, found = [*parts[:-7], "$"], [last]
    place = 1 if parts[:1] == ["^"] else 0
    is_anchored = place == 1
    while parts[place : place + 3] in (["(", "?", "="], ["(", "?", "!"]):
        end = _closing(parts, place)
        inside = parts[place + 3 : end]
        is_anchored = is_anchored or inside[:1] == ["^"]
        inside = inside[1:] if inside[:1] == ["^"] else inside
        made = _asking(inside) if parts[place + 2] == "=" else _forbidding(inside)
        if made is None or not is_anchored or parts[end + 1 : end + 2] in _QUANTIFIERS:
            return ["".join(given)]
        found.append(made)
        place = end + 1
    rest = _without_inner(parts[place:], found)
    starts = parts[:place] if place == is_anchored else ["^"]
    return ["".join([*(() if rest[:1] == ["^"] else starts), *rest]), *found]


def _without_inner(parts: list[str], found: list[str]) -> list[str]:
    """Without ``(?!.*...)`` on the way: what must not follow there is not allowed anywhere."""
    result: list[str] = []
    place = depth = 0
    while place < len(parts):
        if not depth and parts[place : place + 5] == ["(", "?", "!", ".", "*"]:
            end = _closing(parts, place)
            inside = parts[place + 5 : end]
            at_end = inside[-1:] == ["$"]
            made = _not_inside(inside[:-1] if at_end else inside, at_end)
            if made is not None and parts[end + 1 : end + 2] not in _QUANTIFIERS:
                found.append(made)
                place = end + 1
                continue
        depth += (parts[place] == "(") - (parts[place] == ")")
        result.append(parts[place])
        place += 1
    return result


def _asking(parts: Sequence[str]) -> str:
    """A pattern of the texts that begin so."""
    if parts[-1:] == ["$"]:
        return f"^(?:{''.join(parts[:-1])})$"
    return f"^(?:{''.join(parts)})"


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
        return f"(^$|{_other(parts[0])})"
    at_end = parts[-1:] == ["$"]
    parts = parts[:-1] if at_end else parts
    if parts[:2] == [".", "*"]:
        return _not_inside(parts[2:], at_end)
    if parts[-2:] == [".", "*"]:
        # Behind the text anything may come but a line feed: forbidding more is allowed.
        parts, at_end = parts[:-2], False
    if parts[-1:] == ["+"] and not at_end:
        # One is enough to forbid.
        parts = parts[:-1]
    found = [(_class(each), _other(each)) for each in parts]
    if not found or any(one is None or other is None for one, other in found):
        return None
    return _not_beginning(found, at_end)


def _not_inside(parts: Sequence[str], at_end: bool) -> str | None:
    """Texts without a character, without two of it side by side, or that do not end with it."""
    one, other = (_class(parts[0]), _other(parts[0])) if parts else (None, None)
    if one is None or other is None:
        return None
    if len(parts) == 1:
        return f"^({_ANYTHING}{other})?$" if at_end else f"^{other}*$"
    if not at_end and list(parts[1:]) in (["{", "2", "}"], [parts[0]]):
        return f"^({one}?{other})*{one}?$"
    return None


def _not_beginning(found: Sequence[tuple[str | None, str | None]], at_end: bool) -> str:
    """Texts that do not begin with these characters, or are not made of them."""
    inner = rf"[\s\S]{_ANYTHING}" if at_end else ""
    for place in range(len(found) - 1, -1, -1):
        one, other = found[place]
        is_last = place == len(found) - 1 and not at_end
        goes_on = "" if is_last else f"|{one}({inner})"
        inner = f"|{other}{_ANYTHING}{goes_on}"
    return f"^({inner})$"


def _class(part: str) -> str | None:
    """A piece that stands for one character, as a class."""
    if _is_class(part) or part in _ESCAPES:
        return part
    is_quoted = len(part) == 2 and part[0] == "\\" and not part[1].isalnum()
    character = part[1] if is_quoted else part
    if len(character) != 1 or (not is_quoted and character in _SYNTAX):
        return None
    return f"[\\{character}]" if character in _SYNTAX or character == "-" else f"[{character}]"


def _other(part: str) -> str | None:
    """A class of all other characters."""
    one = _class(part)
    if one is None:
        return None
    return _ESCAPES[part] if part in _ESCAPES else f"[^{one[1:]}"


def _is_class(part: str) -> bool:
    return part[0] == "[" and len(part) > 2 and part[1] != "^"
