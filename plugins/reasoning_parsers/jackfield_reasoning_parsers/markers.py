"""Finding the first of a few literal markers in text that is still arriving."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


class Markers:
    """Literal strings, none of them the beginning of another. With ``newline`` one newline right
    before a marker is part of it."""

    def __init__(self, markers: Iterable[str], *, newline: bool = False) -> None:
        found = list(dict.fromkeys(markers))
        assert found and all(found), "a marker is a text"
        self._before = "\n" if newline else ""
        optional = "\n?" if newline else ""
        choices = "|".join(re.escape(marker) for marker in found)
        self._pattern = re.compile(f"{optional}({choices})")
        self._texts = [prefix + marker for marker in found for prefix in {"", self._before}]
        self._longest = max(map(len, self._texts))
        self._first = re.compile("|".join(re.escape(text) for text in {t[0] for t in self._texts}))

    def find(self, text: str) -> tuple[int, int, str] | None:
        """Where the first marker begins and ends, and which it is."""
        match = self._pattern.search(text)
        return None if match is None else (match.start(), match.end(), match[1])

    def match(self, text: str) -> int | None:
        """The end of a marker that ``text`` begins with; 0 if there is none; None if that cannot
        be said yet. The newline does not count here."""
        match = self._pattern.match(text)
        if match is not None and match.start(1) == 0:
            return match.end()
        is_open = any(marker.startswith(text) for marker in self._texts if marker[0] != "\n")
        return None if is_open else 0

    def held(self, text: str) -> int:
        """Length of the longest end of ``text`` that may become a marker."""
        at = max(0, len(text) - self._longest + 1)
        while (first := self._first.search(text, at)) is not None:
            suffix = text[first.start() :]
            if any(marker.startswith(suffix) for marker in self._texts):
                return len(suffix)
            at = first.start() + 1
        return 0


_TOKEN = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]|\u25c1[^\u25b7]+\u25b7")


def special_tokens(texts: Iterable[str]) -> tuple[str, ...]:
    """What in these texts may be a special token of a tokenizer."""
    return tuple(dict.fromkeys(token for text in texts for token in _TOKEN.findall(text)))


@lru_cache(maxsize=256)
def markers_of(texts: tuple[str, ...], *, newline: bool = False) -> Markers:
    """Markers have no state: every choice of a format shares them."""
    return Markers(texts, newline=newline)
