"""Which of a few marker strings comes next in a text that is still arriving."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MAX_SPACES = 16
SUFFIX = "{suffix}"
"""Stands in a marker for what the tokens of some checkpoints end with, such as ``:6124c78e``."""
_SUFFIX = r"(?::[0-9A-Za-z_-]{0,32})?"
_GAP = rf"\s{{0,{_MAX_SPACES}}}"


class Markers:
    """A set of marker strings, of which the first in the text counts, and the longest of those
    that begin at one place. Whitespace within a marker stands for any or none. With ``newline``
    one newline right before a marker belongs to it."""

    def __init__(self, markers: Iterable[str], *, newline: bool = False) -> None:
        self.all = sorted(dict.fromkeys(markers), key=len, reverse=True)
        assert self.all and all(each.strip() for each in self.all), "markers are not empty"
        parts = [(["\n?"] if newline else []) + _parts(marker) for marker in self.all]
        self._whole = re.compile("|".join(f"({''.join(each)})" for each in parts))
        self._beginning = re.compile("|".join(_beginning(each) for each in parts))
        self._longest = max(
            len(each) + _MAX_SPACES * (len(each.split()) - 1) + newline + 32 * each.count(SUFFIX)
            for each in self.all
        )
        firsts = {each[0] for each in self.all} | ({"\n"} if newline else set())
        self._first = re.compile("[" + re.escape("".join(sorted(firsts))) + "]")

    def search(self, text: str, at: int, ended: bool) -> tuple[int, int, str | None]:
        """Where the first marker begins and ends, and which it is. Where none is found:
        where text begins that may become one, twice, and None; the end of the text if nothing
        may."""
        match = self._whole.search(text, at)
        if match is None:
            held = len(text) if ended else self._unfinished(text, at)
            return held, held, None
        if not ended and self._beginning.fullmatch(text, match.start()):
            return match.start(), match.start(), None
        return match.start(), match.end(), self._which(match)

    def match(self, text: str, at: int, ended: bool) -> tuple[int, str | None] | None:
        """The end of the marker that begins at ``at`` and which it is, or ``at`` and None; None
        where only more text can tell."""
        if not ended and (at == len(text) or self._beginning.fullmatch(text, at)):
            return None
        match = self._whole.match(text, at)
        return (at, None) if match is None else (match.end(), self._which(match))

    def last(self, text: str, at: int) -> int:
        """Where the last marker begins, or else text that may become one, or else the end."""
        last = -1
        for match in self._whole.finditer(text, at):
            last = match.start()
        return last if last >= 0 else self._unfinished(text, at)

    def _which(self, match: re.Match[str]) -> str:
        assert match.lastindex is not None
        return self.all[match.lastindex - 1]

    def _unfinished(self, text: str, at: int) -> int:
        """Where the longest end of the text begins that is the beginning of a marker."""
        at = max(at, len(text) - self._longest)
        while first := self._first.search(text, at):
            if self._beginning.fullmatch(text, first.start()):
                return first.start()
            at = first.start() + 1
        return len(text)


def _parts(marker: str) -> list[str]:
    """A regular expression for each character, and one for each gap between words."""
    parts = [re.escape(character) for character in marker[: len(marker) - len(marker.lstrip())]]
    for word in marker.split():
        if parts and not parts[-1].isspace():
            parts.append(_GAP)
        for index, piece in enumerate(word.split(SUFFIX)):
            parts.extend([_SUFFIX] if index else [])
            parts.extend(re.escape(character) for character in piece)
    return parts


def _beginning(parts: list[str]) -> str:
    """Matches what is a beginning of the parts, but not all of them."""
    pattern = ""
    for part in reversed(parts[:-1]):
        pattern = f"{part}(?:{pattern})?" if pattern else part
    return pattern or r"(?!)"
