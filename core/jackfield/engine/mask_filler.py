"""The masks of a step for all its requests that have a grammar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jackfield.contracts.grammar import GrammarBackend, GrammarMatcher, Masks
from jackfield.contracts.work import BoolArray
from jackfield.engine.constraint import Constraint
from jackfield.engine.request import Request
from jackfield.errors import RAISED, RequestError

_STUCK = "the grammar cannot go on with the tokens of this model"
_SOME_WORDS = 64
"""Of a mask. Where the first ones allow nothing, the others are looked at."""


class MaskedRow(NamedTuple):
    """A request that samples under a grammar, and where its mask is."""

    request: Request
    constraint: Constraint
    slot: int


class MaskFiller:
    """Fills the masks of one step at a time, each in a slot of its own. One that stays as it is
    from step to step is not filled again.

    ``make_room`` gives memory for the masks, int32 [S, W], or None; it is called for the first,
    and for the first after ``forget_room``.
    """

    def __init__(
        self, logits_width: int, make_room: Callable[[], Masks | None] = lambda: None
    ) -> None:
        self._make_room = make_room
        self._words = logits_width // 32 + 1
        self._end_word, end_bit = divmod(logits_width, 32)
        self._end_bit = np.uint32(1 << end_bit).astype(np.int32)
        self._room: Masks | None = None
        self._marks: list[object] = []
        """By slot, the mark of the constraint that has filled it with a mask that may stay."""

    def fill(
        self, requests: Sequence[Request], slots: Sequence[int]
    ) -> tuple[Masks, list[bool], list[tuple[Request, BaseException | None]]]:
        """Int32 [S, W], in which the slots, all different, have the masks of the requests until
        the next call; of each request whether that is new; and the requests for which nothing is
        left to sample: complete, or what went wrong with it."""
        room = self._take_room(max(slots, default=-1) + 1)
        rows: list[MaskedRow] = []
        are_new: list[bool] = []
        for request, slot in zip(requests, slots, strict=True):
            constraint = request.constraint
            assert constraint is not None
            keeper = constraint.keeper
            stays = (
                keeper is not None and self._marks[slot] is constraint.mark and keeper.keeps_mask
            )
            are_new.append(not stays)
            if not stays:
                rows.append(MaskedRow(request, constraint, slot))
        if not rows:
            return room, are_new, []
        failed = _fill(rows, room)
        stuck: list[tuple[Request, BaseException | None]] = list(failed)
        altered: set[int] = set()
        for request, is_complete in self._settle_ends(rows, room, altered):
            stuck.append((request, None if is_complete else RequestError(_STUCK)))
        for row in rows:
            keeper = row.constraint.keeper
            stays = keeper is not None and keeper.keeps_mask and row.slot not in altered
            self._marks[row.slot] = row.constraint.mark if stays else None
        return room, are_new, stuck

    def forget_room(self) -> None:
        """The masks are somewhere else from now on."""
        self._room, self._marks = None, []

    def _take_room(self, num_slots: int) -> Masks:
        if self._room is None:
            self._room = self._make_room()
        if self._room is None or len(self._room) < num_slots:
            # Kept: fresh pages cost more than the masks.
            self._room = np.empty((2 * num_slots, self._words), dtype=np.int32)
            self._marks = []
        if not self._marks:
            self._marks = [None] * len(self._room)
        return self._room

    def _settle_ends(
        self, rows: Sequence[MaskedRow], room: Masks, altered: set[int]
    ) -> list[tuple[Request, bool]]:
        """Brings in what a grammar does not know: the ids that end the output, the least number
        of tokens, the start of reasoning. Notes the slots whose masks that changes. Returns the
        requests for which nothing is left to sample, with whether their output is complete."""
        slots = [row.slot for row in rows]
        end_words = room[slots, self._end_word]
        ends = (end_words & self._end_bit).astype(bool)
        room[slots, self._end_word] = end_words & ~self._end_bit
        some_left = _some_left(room, slots)
        special = np.flatnonzero(ends | ~some_left).tolist()
        may_end, is_some_left = ends.tolist(), some_left.tolist()
        apart = [place for place, row in enumerate(rows) if not row.constraint.is_under_way]
        stuck: list[tuple[Request, bool]] = []
        ending: dict[tuple[int, ...], list[int]] = {}
        for place in sorted({*special, *apart}) if apart else special:
            request, constraint, slot = rows[place]
            stop_ids = request.sampling.stop_token_ids
            if constraint.is_waiting:
                _clear(room[slot], stop_ids)
                altered.add(slot)
                continue
            opening = constraint.opening_id
            if opening is not None:
                _allow(room, [slot], (opening,))
                altered.add(slot)
            may_stop = stop_ids and len(request.token_ids) >= request.min_num_tokens
            if may_end[place] and may_stop:
                ending.setdefault(stop_ids, []).append(slot)
            elif not is_some_left[place] and opening is None:
                stuck.append((request, may_end[place]))
                room[slot] = -1
                altered.add(slot)
        for stop_ids, ending_slots in ending.items():
            _allow(room, ending_slots, stop_ids)
            altered.update(ending_slots)
        return stuck


def _fill(rows: Sequence[MaskedRow], room: Masks) -> list[tuple[Request, BaseException]]:
    """Writes the masks of grammars: for a row that still reasons all ones, where a text is forced
    its next id alone. Returns what went wrong with rows that failed; their masks are all ones."""
    by_backend: dict[GrammarBackend, tuple[list[GrammarMatcher], list[int]]] = {}
    for _, constraint, slot in rows:
        if constraint.forced:
            room[slot] = 0
            _allow(room, [slot], constraint.forced[:1])
        elif constraint.is_waiting:
            room[slot] = -1
        elif constraint.is_under_way or constraint.is_begun:
            matchers, slots = by_backend.setdefault(constraint.backend, ([], []))
            matchers.append(constraint.matcher)
            slots.append(slot)
        else:
            room[slot] = 0
    failed: dict[int, BaseException] = {}
    for backend, (matchers, slots) in by_backend.items():
        try:
            backend.fill_bitmasks(matchers, room, slots)
        except RAISED:
            # One of them cannot go on. The others can.
            failed |= _fill_each(matchers, room, slots)
    return [(row.request, failed[row.slot]) for row in rows if row.slot in failed] if failed else []


def _fill_each(
    matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
) -> dict[int, BaseException]:
    failed: dict[int, BaseException] = {}
    for matcher, index in zip(matchers, indices, strict=True):
        try:
            matcher.fill_bitmask(masks, index)
        except RAISED as error:
            failed[index] = error
            masks[index] = -1
    return failed


def _some_left(room: Masks, slots: Sequence[int]) -> BoolArray:
    """Of each slot, whether its mask allows anything."""
    found: BoolArray = np.any(room[slots, :_SOME_WORDS], axis=1)
    for place in np.flatnonzero(~found).tolist():
        found[place] = room[slots[place]].any()
    return found


def _allow(masks: Masks, indices: Sequence[int], ids: Sequence[int]) -> None:
    words = masks.view(np.uint32)
    for token_id in ids:
        words[indices, token_id >> 5] |= np.uint32(1 << (token_id & 31))


def _clear(mask: Masks, ids: Sequence[int]) -> None:
    words = mask.view(np.uint32)
    for token_id in ids:
        words[token_id >> 5] &= np.uint32(~(1 << (token_id & 31)) & 0xFFFFFFFF)
