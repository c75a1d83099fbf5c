"""Splitting text at ``<think>`` and ``</think>``, or any such pair of tags."""

from __future__ import annotations

from enum import Enum

from jackfield.contracts.text import Content, Reasoning

_MAX_LEADING_SPACE = 256


class Place(Enum):
    """Where in the output the next character stands."""

    BEFORE = 0
    """Nothing but whitespace so far; the start tag may come."""
    OPENED = 1
    """Right behind the start tag, whose newline is part of it."""
    INSIDE = 2
    CLOSED = 3
    """Behind the end tag: the newlines that follow are part of it."""
    AFTER = 4


class TagPairScanner:
    """One pass over the output of a choice; the cost is linear in its length.

    The newlines with which templates frame the tags (one behind the start tag, one before the
    end tag, all behind the end tag) belong to the tags, so that sending the reasoning back
    renders the same prompt again. With ``start_is_optional``, output that begins at ``OPENED``
    may still repeat the start tag.
    """

    def __init__(self, start: str, end: str, place: Place, *, start_is_optional: bool) -> None:
        self._start = start
        self._end = end
        self._place = place
        self._start_is_optional = start_is_optional
        self._held = ""

    def feed(self, text: str) -> list[Content | Reasoning]:
        """The events that ``text`` completes."""
        if self._is_after():
            return [Content(text)] if text else []
        events: list[Content | Reasoning] = []
        rest, self._held = self._held + text, ""
        while rest and not self._is_after():
            rest = self._step(rest, events)
        if rest:
            events.append(Content(rest))
        return events

    def finish(self) -> list[Content | Reasoning]:
        """The rest: held back text that has become no tag."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [Content(held) if self._place is Place.BEFORE else Reasoning(held)]

    def _is_after(self) -> bool:
        return self._place is Place.AFTER

    def _step(self, text: str, events: list[Content | Reasoning]) -> str:
        """Consumes some of the text, or holds all of it; returns what is left to look at."""
        if self._place is Place.BEFORE:
            return self._before(text)
        if self._place is Place.OPENED:
            return self._opened(text)
        if self._place is Place.INSIDE:
            return self._inside(text, events)
        rest = text.lstrip("\n")
        if rest:
            self._place = Place.AFTER
        return rest

    def _before(self, text: str) -> str:
        found = self._leading_start(text)
        if found is None:
            self._held = text
            return ""
        self._place = Place.OPENED if found else Place.AFTER
        self._start_is_optional = False
        return text[found:]

    def _opened(self, text: str) -> str:
        if self._start_is_optional:
            found = self._leading_start(text)
            if found is None:
                self._held = text
                return ""
            self._start_is_optional = False
            if found:
                return text[found:]
        self._place = Place.INSIDE
        return text.removeprefix("\n")

    def _leading_start(self, text: str) -> int | None:
        """End of a start tag at the beginning of the output, 0 if there is none, None if that
        cannot be said yet."""
        stripped = text.lstrip()
        space = len(text) - len(stripped)
        if space > _MAX_LEADING_SPACE:
            return 0
        if stripped.startswith(self._start):
            return space + len(self._start)
        return None if self._start.startswith(stripped) else 0

    def _inside(self, text: str, events: list[Content | Reasoning]) -> str:
        at = text.find(self._end)
        if at >= 0:
            _reasoning(text[: at - 1] if text[at - 1 : at] == "\n" else text[:at], events)
            self._place = Place.CLOSED
            return text[at + len(self._end) :]
        keep = self._partial_end(text)
        _reasoning(text[: len(text) - keep], events)
        self._held = text[len(text) - keep :]
        return ""

    def _partial_end(self, text: str) -> int:
        """Length of the longest suffix that may become the end tag with its newline."""
        marker = "\n" + self._end
        tail = text[-len(marker) :]
        if "\n" not in tail and self._end[0] not in tail:
            return 0
        at = max(0, len(text) - len(marker) + 1)
        while at < len(text):
            suffix = text[at:]
            if marker.startswith(suffix) or self._end.startswith(suffix):
                return len(suffix)
            at += 1
        return 0


def _reasoning(text: str, events: list[Content | Reasoning]) -> None:
    if text:
        events.append(Reasoning(text))


def prompt_place(prompt_suffix: str, start: str, end: str) -> Place | None:
    """Where the output begins if the template wrote a tag last; None if it did not."""
    prompt = prompt_suffix.rstrip()
    if prompt.endswith(end):
        return Place.AFTER
    if prompt.endswith(start):
        return Place.OPENED if prompt == prompt_suffix else Place.INSIDE
    return None
