"""Where thinking ends, as token ids: for the engine's budget, for grammars and for counting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jackfield.contracts.sampling import REASONING_STARTS_WITHIN
from jackfield.contracts.text import ReasoningBoundary, Tokenizer

Ids = tuple[int, ...]

# Text that may stand on either side of a marker.
_NEIGHBOURS = ("x", ".", "\n", "\n\n", " ")


@dataclass(frozen=True, slots=True)
class ReasoningIds:
    """A ``ReasoningBoundary`` in the ids of one tokenizer.

    ``start`` is empty where nothing opens the thinking; ``answer`` is what a grammar waits for;
    ``closing`` is what is forced when a budget is used up.
    """

    start: Ids
    end: Ids
    answer: Ids
    closing: Ids
    opened: bool

    @classmethod
    def of(cls, boundary: ReasoningBoundary, tokenizer: Tokenizer) -> ReasoningIds | None:
        """None where some marker has no ids of its own, so that ids cannot tell where it is."""
        start: Ids | None = ()
        if boundary.start is not None:
            start = marker_ids(boundary.start, tokenizer)
        end = marker_ids(boundary.end, tokenizer)
        answer = marker_ids(boundary.answer, tokenizer) if boundary.answer else end
        if start is None or end is None or answer is None:
            return None
        closing = end
        if boundary.closing:
            closing = tuple(tokenizer.encode(boundary.closing, add_special_tokens=False))
        return cls(start, end, answer, closing, boundary.opened)


def marker_ids(marker: str, tokenizer: Tokenizer) -> Ids | None:
    """The ids of a marker, if it has the same whatever text is around it; else None."""
    ids = tokenizer.encode(marker, add_special_tokens=False)
    if not ids:
        return None
    for neighbour in _NEIGHBOURS:
        around = tokenizer.encode(neighbour + marker + neighbour, add_special_tokens=False)
        if find(around, ids) is None:
            return None
    return tuple(ids)


def find(ids: list[int], wanted: Iterable[int]) -> int | None:
    """Where ``wanted`` stands first in ``ids``."""
    sought = list(wanted)
    for at in range(len(ids) - len(sought) + 1):
        if ids[at : at + len(sought)] == sought:
            return at
    return None


class ReasoningCounter:
    """Counts the ids between start and end, which are not counted themselves. O(1) an id.

    Where the output need not hold thinking, only a start among its first ids opens it: the
    template may have left whitespace to the model, and what comes later is quoted.
    """

    def __init__(self, ids: ReasoningIds) -> None:
        self.count = 0
        self._ids = ids
        self._inside = ids.opened
        self._tail: list[int] = []
        self._left_to_open = REASONING_STARTS_WITHIN + len(ids.start) if ids.start else 0
        self._done = False

    def feed(self, token_ids: Iterable[int]) -> int:
        """Takes new ids; how many of them, less the markers that they complete, are thinking.

        A marker of several ids is taken back once it is complete.
        """
        before = self.count
        for token in token_ids:
            if not self._done:
                self._take(token)
        return self.count - before

    def _take(self, token: int) -> None:
        longest = max(len(self._ids.start), len(self._ids.end))
        self._tail = [*self._tail[-longest + 1 :], token] if longest > 1 else [token]
        self.count += self._inside
        if self._left_to_open:
            self._left_to_open -= 1
            if self._ends_with(self._ids.start):
                self._inside, self._left_to_open, self.count, self._tail = True, 0, 0, []
                return
        if self._inside and self._ends_with(self._ids.end):
            self._done = True
            self.count -= len(self._ids.end)
        elif not self._inside and not self._left_to_open:
            self._done = True

    def _ends_with(self, marker: Ids) -> bool:
        return tuple(self._tail[-len(marker) :]) == marker
