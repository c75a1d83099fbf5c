"""Where thinking ends, as token ids: for the engine's budget, for grammars and for counting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jackfield.contracts.sampling import REASONING_STARTS_WITHIN
from jackfield.contracts.text import ReasoningBoundary, Tokenizer

Ids = tuple[int, ...]

# Text that may stand on either side of a marker.
_NEIGHBOURS = ("x", ".", "\n", "\n\n", " ")


@dataclass(frozen=True, slots=True)
class ReasoningIds:
    """A ``ReasoningBoundary`` in the ids of one tokenizer.

    ``start`` is empty where nothing opens the thinking; any of ``ends`` ends it; ``answer`` is
    what a grammar waits for; ``closing`` is what is forced when a budget is used up.
    """

    start: Ids
    ends: tuple[Ids, ...]
    answer: Ids
    closing: Ids
    opened: bool
    repeats: bool

    @classmethod
    def of(cls, boundary: ReasoningBoundary, tokenizer: Tokenizer) -> ReasoningIds | None:
        """None where a marker has no ids of its own, so that ids cannot tell where it is."""
        start: Ids | None = ()
        if boundary.start is not None:
            start = marker_ids(boundary.start, tokenizer)
        end = marker_ids(boundary.end, tokenizer)
        answer = marker_ids(boundary.answer, tokenizer) if boundary.answer else end
        if start is None or end is None or answer is None:
            return None
        others = (marker_ids(other, tokenizer) for other in boundary.other_ends)
        closing = end
        if boundary.closing:
            closing = tuple(tokenizer.encode(boundary.closing, add_special_tokens=False))
        ends = (end, *(other for other in others if other is not None))
        return cls(start, ends, answer, closing, boundary.opened, boundary.repeats)


def marker_ids(marker: str, tokenizer: Tokenizer) -> Ids | None:
    """The ids of a marker, if it has the same whatever text is around it; else None."""
    ids = tokenizer.encode(marker, add_special_tokens=False)
    for neighbour in _NEIGHBOURS:
        around = tokenizer.encode(neighbour + marker + neighbour, add_special_tokens=False)
        if not ids or not _holds(around, ids):
            return None
    return tuple(ids)


def _holds(ids: Sequence[int], wanted: Sequence[int]) -> bool:
    places = range(len(ids) - len(wanted) + 1)
    return any(ids[at : at + len(wanted)] == wanted for at in places)


class ReasoningCounter:
    """Counts the ids between start and end, which are not counted themselves. O(1) an id."""

    def __init__(self, ids: ReasoningIds) -> None:
        self._ids = ids
        self._inside = ids.opened
        # One more, since an id is taken off before it is looked at.
        self._may_open = len(ids.start) + REASONING_STARTS_WITHIN + 1 if ids.start else 0
        self._num_kept = max(len(marker) for marker in (ids.start, *ids.ends))
        self._tail: Ids = ()
        self._count = 0

    def feed(self, token_ids: Iterable[int]) -> int:
        """How much these ids add to the count: less than 0 where they complete a marker whose
        first ids were counted before."""
        before = self._count
        for token in token_ids:
            if self._inside or self._may_open:
                self._take(token)
        return self._count - before

    def _take(self, token: int) -> None:
        self._tail = (*self._tail, token)[-self._num_kept :]
        self._count += self._inside
        if self._may_open and not self._ids.repeats:
            self._may_open -= 1
        if self._may_open and self._ends_with(self._ids.start):
            self._open()
        elif self._inside:
            end = next((end for end in self._ids.ends if self._ends_with(end)), None)
            if end is not None:
                self._count -= len(end)
                self._inside = False
                self._may_open = len(self._ids.start) if self._ids.repeats else 0

    def _open(self) -> None:
        if self._inside:
            self._count -= len(self._ids.start)
        self._inside, self._tail = True, ()
        self._may_open = 0

    def _ends_with(self, marker: Ids) -> bool:
        return self._tail[-len(marker) :] == marker
