"""Places in the outputs of regexes, choices and tags: one name where the same may come behind.

For a regex that is the set of its parts that may come next (Thompson, "Regular Expression Search
Algorithm", CACM 11, 1968), followed character by character. What is not sure to mean here what the
library takes it for has no places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from jackfield_grammars.json_regex import pieces

MAX_PARTS = 600
"""Of a regex, repetitions written out."""
_MAX_AT_ONCE = 32
"""Parts that may come next: each is tried for each character of a token that is new there."""
_ESCAPES = frozenset("nrtfdDwW")
_UNSURE = re.compile(r"\[\[|--|&&|\|\||~~|\[:")
"""In classes. They mean nothing special, but may once; Python says so."""
_QUANTIFIERS = {"?": (0, 1), "*": (0, None), "+": (1, None)}
_COUNTS = re.compile(r"\{(\d{1,3})(,?)(\d{0,3})\}")
_SYNTAX = frozenset("()|?*+{}[]^$.")

Matches = Callable[[str], object]
Builder = Callable[[int], int]
"""Takes the part that a piece of the regex begins at, and returns the one behind it."""


class _UnsureError(Exception):
    """The regex has something else than is known here."""


@dataclass(frozen=True, slots=True)
class RegexPlace:
    """``parts`` may come next, behind the bytes of a ``pending`` character."""

    parts: frozenset[int]
    pending: bytes = b""


class RegexPlaces:
    """The places of a regex."""

    def __init__(self, pattern: str) -> None:
        """Raises ``ValueError`` for a regex that has none."""
        self._moves: list[tuple[Matches, int] | None] = []
        self._ways: list[list[int]] = []
        """From each part to those that it may be left for without a character."""
        try:
            first = self.part()
            _Reading(pattern, self).alternatives()(first)
        except (_UnsureError, re.error, RecursionError):
            raise ValueError("a regex without places") from None
        self.first = RegexPlace(self._closure({first}))

    def is_common(self, place: RegexPlace) -> bool:
        """Always: there are few."""
        return True

    def freed(self, place: RegexPlace) -> None:
        """Never: it is no JSON."""

    def after(self, place: RegexPlace, token: bytes) -> RegexPlace | None:
        """The place behind a token that the grammar allows; None where nobody can say."""
        data = place.pending + token
        try:
            text, pending = data.decode(), b""
        except UnicodeDecodeError as error:
            pending = data[error.start :]
            if error.reason != "unexpected end of data":
                return None
            text = data[: error.start].decode()
        parts = place.parts
        for character in text:
            moves = (self._moves[part] for part in parts)
            parts = self._closure({move[1] for move in moves if move and move[0](character)})
        if not 0 < len(parts) <= _MAX_AT_ONCE:
            return None
        found = RegexPlace(parts, pending)
        return place if found == place else found

    def _closure(self, parts: set[int]) -> frozenset[int]:
        left = list(parts)
        while left:
            for part in self._ways[left.pop()]:
                if part not in parts:
                    parts.add(part)
                    left.append(part)
        return frozenset(part for part in parts if self._moves[part] or not self._ways[part])

    # --- how it is built -------------------------------------------------------------------

    def part(self) -> int:
        """A new part."""
        if len(self._ways) >= MAX_PARTS:
            raise _UnsureError
        self._moves.append(None)
        self._ways.append([])
        return len(self._ways) - 1

    def way(self, begin: int) -> int:
        """A new part that ``begin`` leads to."""
        end = self.part()
        self._ways[begin].append(end)
        return end

    def join(self, begin: int, end: int) -> None:
        """Lets a part be left for another."""
        self._ways[begin].append(end)

    def move(self, begin: int, matches: Matches) -> int:
        """The part behind a character that comes at ``begin``."""
        start, end = self.way(begin), self.part()
        self._moves[start] = matches, end
        return end


class _Reading:
    """A regex on its way to parts."""

    def __init__(self, pattern: str, places: RegexPlaces) -> None:
        self._pieces = pieces(pattern)
        self._places = places
        self._at = 0

    def alternatives(self, *, is_inner: bool = False) -> Builder:
        found = [self._sequence()]
        while self._next == "|":
            self._at += 1
            found.append(self._sequence())
        if (self._next == ")") != is_inner:
            raise _UnsureError

        def build(begin: int) -> int:
            end = self._places.part()
            for each in found:
                self._places.join(each(self._places.way(begin)), end)
            return end

        return build

    @property
    def _next(self) -> str:
        return self._pieces[self._at] if self._at < len(self._pieces) else ""

    def _sequence(self) -> Builder:
        found: list[Builder] = []
        while self._next not in ("", "|", ")"):
            found.append(self._repeated())
        return lambda begin: reduce(lambda place, each: each(place), found, begin)

    def _repeated(self) -> Builder:
        one = self._atom()
        least, most = self._quantifier()
        if (least, most) == (1, 1):
            return one

        def build(begin: int) -> int:
            place = reduce(lambda place, _: one(place), range(least), begin)
            end = self._places.way(place)
            if most is None:
                self._places.join(one(end), end)
            for _ in range(0 if most is None else most - least):
                place = one(place)
                self._places.join(place, end)
            return end

        return build

    def _quantifier(self) -> tuple[int, int | None]:
        """How often; once where there is none."""
        found: tuple[int, int | None] = (1, 1)
        if self._next in _QUANTIFIERS:
            found = _QUANTIFIERS[self._next]
            self._at += 1
        elif self._next == "{":
            rest = "".join(self._pieces[self._at : self._at + 9])
            counts = _COUNTS.match(rest)
            if counts is None:
                raise _UnsureError
            least = int(counts[1])
            most = int(counts[3]) if counts[3] else None if counts[2] else least
            if most is not None and most < least:
                raise _UnsureError
            self._at += counts.end()
            found = least, most
        else:
            return found
        if self._next in (*_QUANTIFIERS, "{"):  # lazy, possessive, or one of a repetition
            raise _UnsureError
        return found

    def _atom(self) -> Builder:
        piece = self._next
        self._at += 1
        if piece == "(":
            if self._next == "?":
                if self._pieces[self._at + 1 : self._at + 2] != [":"]:
                    raise _UnsureError
                self._at += 2
            inner = self.alternatives(is_inner=True)
            self._at += 1
            return inner
        matches = _matches(piece)
        return lambda begin: self._places.move(begin, matches)


def _matches(piece: str) -> Matches:
    """Whether a character is one that a piece stands for."""
    is_class = piece[0] == "[" and len(piece) > 2
    escapes = re.findall(r"\\(.)", piece, re.DOTALL)
    if any(each.isalnum() and each not in _ESCAPES for each in escapes):
        raise _UnsureError
    if is_class and (_UNSURE.search(piece) or piece in ("[^]", "[]")):
        raise _UnsureError
    if not is_class and not escapes and (len(piece) != 1 or piece in _SYNTAX):
        raise _UnsureError
    return re.compile(piece, re.ASCII).fullmatch


class ChoicePlaces:
    """The places of a list of texts: what is written so far."""

    first = b""

    def is_common(self, place: bytes) -> bool:
        """Always: there are few."""
        return True

    def freed(self, place: bytes) -> None:
        """Never: it is no JSON."""

    def after(self, place: bytes, token: bytes) -> bytes:
        """The place behind a token."""
        return place + token


class FreeTextPlaces:
    """The places of free text in which a trigger begins something else: how much of a trigger the
    text ends with. Behind a trigger nobody can say."""

    first = b""

    def __init__(self, triggers: Sequence[bytes]) -> None:
        self._triggers = triggers
        self._beginnings = {each[:size] for each in triggers for size in range(len(each))}
        self._longest = max(map(len, self._beginnings))

    def is_common(self, place: bytes) -> bool:
        """Always: there are few."""
        return True

    def freed(self, place: bytes) -> None:
        """Never: it is no JSON."""

    def after(self, place: bytes, token: bytes) -> bytes | None:
        """The place behind a token that the grammar allows; None behind a trigger."""
        text = place + token
        if not token or any(each in text for each in self._triggers):
            return None
        ends = (text[max(0, len(text) - size) :] for size in range(self._longest, -1, -1))
        found = next((each for each in ends if each in self._beginnings), b"")
        return place if found == place else found
