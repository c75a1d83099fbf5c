"""What a request's grammar still allows, and the masks of a step for all such requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jackfield.contracts.grammar import GrammarBackend, GrammarMatcher, Masks
from jackfield.contracts.sampling import TokenSampling
from jackfield.engine.grammar_compiler import ReadyGrammar
from jackfield.errors import RAISED


class Constraint:
    """The grammar of one request, begun where its reasoning has ended.

    An output that does not begin inside the reasoning may still open it: as long as it is the
    start marker so far, the marker's next id is allowed beside what the grammar allows.
    """

    def __init__(self, grammar: ReadyGrammar, sampling: TokenSampling) -> None:
        self.backend: GrammarBackend = grammar.backend
        self.matcher: GrammarMatcher = grammar.compiled.matcher()
        self._start = sampling.reasoning_start_ids if sampling.reasoning_end_ids else ()
        self._end = sampling.reasoning_end_ids
        self.is_waiting = sampling.starts_in_reasoning and bool(self._end)
        """Whether the reasoning is still under way: anything but the end is allowed."""
        self._num_opened = -1 if self.is_waiting or not self._start else 0
        """How many ids of the start marker the output consists of; -1 if it is no marker."""
        self._num_accepted = 0
        self._tail: list[int] = []
        self._may_force = not _forbids_ids(sampling)
        self.forced: list[int] = []
        """The ids that must follow, in their order, if the grammar forces a longer text."""
        self._look_ahead()

    @property
    def opening_id(self) -> int | None:
        """The id that would go on opening the reasoning, where that is possible."""
        return self._start[self._num_opened] if self._num_opened >= 0 else None

    @property
    def is_begun(self) -> bool:
        """Whether the grammar itself allows what was output so far."""
        return self._num_opened <= self._num_accepted

    @property
    def is_under_way(self) -> bool:
        """Whether the grammar alone says what comes next: no reasoning goes on or may begin."""
        return self._num_opened < 0 and not self.is_waiting

    def accept(self, token_id: int) -> bool:
        """Takes the next id; False where it is not allowed."""
        if self.is_waiting:
            self._look_for_end(token_id)
            self._look_ahead()
            return True
        if self._num_opened < 0:
            return self._follow(token_id)
        opens = token_id == self.opening_id
        if self.is_begun and self.matcher.accept(token_id):
            self._num_accepted += 1
        elif not opens:
            return False
        if not opens:
            self._num_opened = -1
            self._look_ahead()
            return self._num_accepted > 0
        self._num_opened += 1
        if self._num_opened == len(self._start):
            self.matcher.rollback(self._num_accepted)
            self._num_opened = -1
            self.is_waiting = True
        return True

    def _follow(self, token_id: int) -> bool:
        if not self.matcher.accept(token_id):
            return False
        if self.forced:
            del self.forced[0]
        elif self._may_force:
            self.forced = self.matcher.jump()
        return True

    def _look_ahead(self) -> None:
        if self._may_force and not self.is_waiting and self._num_opened < 0:
            self.forced = self.matcher.jump()

    def _look_for_end(self, token_id: int) -> None:
        self._tail.append(token_id)
        del self._tail[: -len(self._end)]
        if tuple(self._tail) == self._end:
            self.is_waiting = False


def _forbids_ids(sampling: TokenSampling) -> bool:
    """Whether the request may forbid an id with which a forced text would be written."""
    return bool(
        sampling.allowed_token_ids is not None
        or sampling.bad_words
        or sampling.logit_bias
        or sampling.logits_processors
        or sampling.extra_args
    )


class MaskedRow:
    """A sequence of a step that samples under a grammar."""

    __slots__ = ("constraint", "index", "may_stop", "stop_ids")

    def __init__(
        self, index: int, constraint: Constraint, stop_ids: tuple[int, ...], may_stop: bool
    ) -> None:
        self.index = index
        """Its place in the step."""
        self.constraint = constraint
        self.stop_ids = stop_ids
        self.may_stop = may_stop
        """Whether it has the tokens that it must have at least."""


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

    def fill(self, rows: Sequence[MaskedRow]) -> tuple[Masks, dict[int, BaseException]]:
        """int32 [rows, W]: the masks of the grammars; for a row that still reasons all ones. They
        hold until the next call. By its index, what went wrong with a row that failed; its mask
        is all ones too."""
        if self._room is None:
            self._room = self._make_room()
        if self._room is None or len(self._room) < len(rows):
            # Kept: fresh pages cost more than the masks.
            self._room = np.empty((2 * len(rows), self._words), dtype=np.int32)
        masks = self._room[: len(rows)]
        by_backend: dict[GrammarBackend, tuple[list[GrammarMatcher], list[int]]] = {}
        for index, row in enumerate(rows):
            constraint = row.constraint
            if constraint.is_waiting:
                masks[index] = -1
            elif constraint.forced:
                masks[index] = 0
                _allow(masks, [index], constraint.forced[:1])
            elif not constraint.is_begun:
                masks[index] = 0
            else:
                matchers, indices = by_backend.setdefault(constraint.backend, ([], []))
                matchers.append(constraint.matcher)
                indices.append(index)
        failed: dict[int, BaseException] = {}
        for backend, (matchers, indices) in by_backend.items():
            try:
                backend.fill_bitmasks(matchers, masks, indices)
            except RAISED:
                # One of them cannot go on. The others can.
                failed |= _fill_each(matchers, masks, indices)
        return masks, failed

    def settle_ends(self, rows: Sequence[MaskedRow], masks: Masks) -> list[tuple[MaskedRow, bool]]:
        """Brings in what a grammar does not know: the ids that end the output, the least number
        of tokens, the start of reasoning. Returns the rows for which nothing is left to sample,
        with whether their output is complete."""
        ends = (masks[:, self._end_word] & self._end_bit).astype(bool).tolist()
        masks[:, self._end_word] &= ~self._end_bit
        stuck: list[tuple[MaskedRow, bool]] = []
        ending: dict[tuple[int, ...], list[int]] = {}
        some_left = _some_left(masks)
        for index, (row, may_end, is_some_left) in enumerate(
            zip(rows, ends, some_left, strict=True)
        ):
            constraint = row.constraint
            if constraint.is_under_way:
                opening = None
            elif constraint.is_waiting:
                _clear(masks[index], row.stop_ids)
                continue
            else:
                opening = constraint.opening_id
                if opening is not None:
                    _allow(masks, [index], (opening,))
            if may_end and row.stop_ids and (row.may_stop or not is_some_left):
                ending.setdefault(row.stop_ids, []).append(index)
            elif not is_some_left and opening is None:
                stuck.append((row, may_end))
                masks[index] = -1
        for stop_ids, indices in ending.items():
            _allow(masks, indices, stop_ids)
        return stuck


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


def _some_left(masks: Masks) -> list[bool]:
    """Of each mask, whether it allows anything."""
    found = np.any(masks[:, :_SOME_WORDS], axis=1)
    return [bool(some) or bool(masks[index].any()) for index, some in enumerate(found)]


def _allow(masks: Masks, indices: Sequence[int], ids: Sequence[int]) -> None:
    words = masks.view(np.uint32)
    for token_id in ids:
        words[indices, token_id >> 5] |= np.uint32(1 << (token_id & 31))


def _clear(mask: Masks, ids: Sequence[int]) -> None:
    words = mask.view(np.uint32)
    for token_id in ids:
        words[token_id >> 5] &= np.uint32(~(1 << (token_id & 31)) & 0xFFFFFFFF)
