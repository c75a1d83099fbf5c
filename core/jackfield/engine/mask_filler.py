"""The masks of a step for all its requests that have a grammar."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jackfield.contracts.grammar import GrammarBackend, GrammarMatcher, Masks
from jackfield.contracts.work import BoolArray
from jackfield.engine.constraint import Constraint
from jackfield.engine.request import Request
from jackfield.errors import RAISED, RequestError

_STUCK = "the grammar cannot go on with the tokens of this model"
_SOME_WORDS = 64
"""Of a mask. Where the first ones allow nothing, the others are looked at."""


class MaskFiller:
    """Fills the masks of one step at a time. Holds no state but room.

    ``make_room`` gives memory for as many masks as a step can need, int32 [R, W], or None; it is
    called for the first masks."""

    def __init__(
        self, logits_width: int, make_room: Callable[[], Masks | None] = lambda: None
    ) -> None:
        self._make_room = make_room
        self._words = logits_width // 32 + 1
        self._end_word, end_bit = divmod(logits_width, 32)
        self._end_bit = np.uint32(1 << end_bit).astype(np.int32)
        self._room: Masks | None = None

    def fill(
        self, requests: Sequence[Request]
    ) -> tuple[Masks, list[tuple[Request, BaseException | None]]]:
        """int32 [rows, W], a mask for each request, which hold until the next call; and the
        requests for which nothing is left to sample: complete, or what went wrong with it."""
        masks = self._take_room(len(requests))
        constraints = [_constraint(each) for each in requests]
        failed = _fill(constraints, masks)
        stuck: list[tuple[Request, BaseException | None]] = [
            (requests[index], error) for index, error in failed.items()
        ]
        for request, is_complete in self._settle_ends(requests, constraints, masks):
            error = None if is_complete else RequestError(_STUCK)
            stuck.append((request, error))
        return masks, stuck

    def _take_room(self, num_rows: int) -> Masks:
        if self._room is None:
            self._room = self._make_room()
        if self._room is None or len(self._room) < num_rows:
            # Kept: fresh pages cost more than the masks.
            self._room = np.empty((2 * num_rows, self._words), dtype=np.int32)
        return self._room[:num_rows]

    def _settle_ends(
        self, requests: Sequence[Request], constraints: Sequence[Constraint], masks: Masks
    ) -> list[tuple[Request, bool]]:
        """Brings in what a grammar does not know: the ids that end the output, the least number
        of tokens, the start of reasoning. Returns the requests for which nothing is left to
        sample, with whether their output is complete."""
        ends = (masks[:, self._end_word] & self._end_bit).astype(bool)
        masks[:, self._end_word] &= ~self._end_bit
        some_left = _some_left(masks)
        special = np.flatnonzero(ends | ~some_left).tolist()
        apart = [i for i, each in enumerate(constraints) if not each.is_under_way]
        stuck: list[tuple[Request, bool]] = []
        ending: dict[tuple[int, ...], list[int]] = {}
        for index in sorted({*special, *apart}) if apart else special:
            request, constraint, mask = requests[index], constraints[index], masks[index]
            stop_ids = request.sampling.stop_token_ids
            if constraint.is_waiting:
                _clear(mask, stop_ids)
                continue
            may_end, is_some_left = bool(ends[index]), bool(some_left[index])
            opening = constraint.opening_id
            if opening is not None:
                _allow(masks, [index], (opening,))
            may_stop = len(request.token_ids) >= request.min_num_tokens
            if may_end and stop_ids and (may_stop or not is_some_left):
                ending.setdefault(stop_ids, []).append(index)
            elif not is_some_left and opening is None:
                stuck.append((request, may_end))
                mask[:] = -1
        for stop_ids, indices in ending.items():
            _allow(masks, indices, stop_ids)
        return stuck


def _fill(constraints: Sequence[Constraint], masks: Masks) -> dict[int, BaseException]:
    """Writes the masks [rows, W] of grammars: for a row that still reasons all ones, where a text
    is forced its next id alone. By its index, what went wrong with a row that failed; its mask is
    all ones too."""
    by_backend: dict[GrammarBackend, tuple[list[GrammarMatcher], list[int]]] = {}
    for index, constraint in enumerate(constraints):
        if constraint.forced:
            masks[index] = 0
            _allow(masks, [index], constraint.forced[:1])
        elif constraint.is_waiting:
            masks[index] = -1
        elif constraint.is_under_way or constraint.is_begun:
            matchers, indices = by_backend.setdefault(constraint.backend, ([], []))
            matchers.append(constraint.matcher)
            indices.append(index)
        else:
            masks[index] = 0
    failed: dict[int, BaseException] = {}
    for backend, (matchers, indices) in by_backend.items():
        try:
            backend.fill_bitmasks(matchers, masks, indices)
        except RAISED:
            # One of them cannot go on. The others can.
            failed |= _fill_each(matchers, masks, indices)
    return failed


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


def _constraint(request: Request) -> Constraint:
    assert request.constraint is not None
    return request.constraint


def _some_left(masks: Masks) -> BoolArray:
    """Of each mask, whether it allows anything."""
    found: BoolArray = np.any(masks[:, :_SOME_WORDS], axis=1)
    for index in np.flatnonzero(~found).tolist():
        found[index] = masks[index].any()
    return found


def _allow(masks: Masks, indices: Sequence[int], ids: Sequence[int]) -> None:
    words = masks.view(np.uint32)
    for token_id in ids:
        words[indices, token_id >> 5] |= np.uint32(1 << (token_id & 31))


def _clear(mask: Masks, ids: Sequence[int]) -> None:
    words = mask.view(np.uint32)
    for token_id in ids:
        words[token_id >> 5] &= np.uint32(~(1 << (token_id & 31)) & 0xFFFFFFFF)
