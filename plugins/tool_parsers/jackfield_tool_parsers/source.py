"""The text of one choice as a scanner reads it: piece by piece, waiting where it must.

Scanners are generators, written as if all the text were there: where they need more than has
arrived, they yield, and go on when it has. What they read depends on the text alone, never on how
it was split. Every character is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TypeVar

from jackfield_tool_parsers.markers import Markers

T = TypeVar("T")
Wait = Generator[None, None, T]
"""Yields where more text is needed; returns a ``T``."""

MAX_FRAME = 64
"""Whitespace that may stand between markers, in characters."""
SPACE = re.compile(r"\s*")


class Broken(Exception):
    """The text is not what a call looks like."""


class Truncated(Broken):
    """The text ended in the middle of a call."""


class Source:
    """What has arrived and was not read yet is ``text`` from ``at`` on. ``ended``: nothing more
    will come."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self._marker_at = 0
        self._mark = -1  # where the text begins that may be given back; earlier pieces of it:
        self._earlier: list[str] = []

    def add(self, text: str) -> None:
        """More has arrived."""
        if self._mark >= 0:
            if self.at > self._mark:
                self._earlier.append(self.text[self._mark : self.at])
            self._mark = 0
        self.text = self.text[self.at :] + text if self.at < len(self.text) else text
        self.at = 0

    # --- giving back -----------------------------------------------------------------

    def mark(self, at: int | None = None) -> None:
        """From here on (or from ``at``), text that is read can be given back."""
        self._earlier.clear()
        self._mark = self.at if at is None else at

    def keep(self) -> None:
        """What was read is read."""
        self._earlier.clear()
        self._mark = -1

    def give_back(self) -> str:
        """The text read since the mark; ``unread`` it to read it again."""
        assert self._mark >= 0
        text = "".join([*self._earlier, self.text[self._mark : self.at]])
        self.keep()
        return text

    def unread(self, text: str) -> None:
        """Puts text in front of what is still to be read."""
        if text:
            self.text = text + self.text[self.at :]
            self.at = 0

    # --- reading ---------------------------------------------------------------------

    def peek(self) -> Wait[str]:
        """The next character; an empty string at the end of everything."""
        while self.at == len(self.text):
            if self.ended:
                return ""
            yield
        return self.text[self.at]

    def skip_space(self) -> Wait[str]:
        """The next character that is no whitespace, not yet read; empty at the end."""
        while True:
            match = SPACE.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            yield

    def accept(self, markers: Markers) -> Wait[str | None]:
        """Reads a marker if one is next, behind whitespace or not, and says which; reads nothing
        and returns None if none is."""
        while True:
            match = SPACE.match(self.text, self.at)
            assert match is not None
            begin = match.end()
            if begin - self.at > MAX_FRAME:
                return None
            found = markers.match(self.text, begin, self.ended)
            if found is not None:
                end, which = found
                if which is not None:
                    self._marker_at, self.at = begin, end
                return which
            yield

    def expect(self, markers: Markers) -> Wait[str]:
        """As ``accept``; ``Broken`` or ``Truncated`` if no marker is next."""
        which = yield from self.accept(markers)
        if which is None:
            raise Truncated if self.rest_begins(markers) else Broken
        return which

    def rest_begins(self, markers: Markers) -> bool:
        """Whether all ended in what could have become a marker."""
        rest = self.text[self.at :].strip()
        return self.ended and (not rest or markers.match(rest, 0, False) is None)

    def before(self, markers: Markers) -> Wait[tuple[str, str | None]]:
        """Reads on to the next marker and over it: the text before it and which it is. Where the
        marker has not come yet, some of the text and None: call again. ``Truncated`` at the end."""
        while True:
            if self.at == len(self.text) and not self.ended:
                yield
                continue
            start, end, which = markers.search(self.text, self.at, self.ended)
            text = self.text[self.at : start]
            self._marker_at, self.at = start, end
            if which is not None or text:
                return text, which
            if self.ended:
                raise Truncated
            yield

    def unread_marker(self) -> None:
        """The marker that was read last, and nothing behind it, is to be read again."""
        self.at = self._marker_at

    def marker_text(self) -> str:
        """The marker that was found last, as the model wrote it."""
        return self.text[self._marker_at : self.at]

    def all_before(self, markers: Markers, at_most: int | None = None) -> Wait[tuple[str, str]]:
        """All the text before the next marker, which is read; ``Broken`` if it is too long."""
        pieces = []
        length = 0
        while True:
            text, which = yield from self.before(markers)
            pieces.append(text)
            length += len(text)
            if at_most is not None and length > at_most:
                raise Broken
            if which is not None:
                return "".join(pieces), which

    def match(self, pattern: re.Pattern[str]) -> Wait[str]:
        """Reads as much as the pattern, one that repeats a character class, takes."""
        pieces = []
        while True:
            found = pattern.match(self.text, self.at)
            assert found is not None
            pieces.append(found[0])
            self.at = found.end()
            if self.at < len(self.text) or self.ended:
                return "".join(pieces)
            yield
