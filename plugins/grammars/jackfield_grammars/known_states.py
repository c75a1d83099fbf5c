"""What a grammar allows behind the texts that some output had already: masks and forced ids, kept.

Outputs of one grammar begin alike and come through the same places. A state is what is known of
such a place, and which tokens lead to which other state: where an output goes the way of one
before it, the library need not be asked, and is told the tokens later, several at once. Tokens
that lead to the state itself it is never told: what may follow is the same without them.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from jackfield.contracts.grammar import GrammarMatcher, Masks, Vocabulary
from jackfield.errors import RequestError
from jackfield_grammars.free_strings import PlainTokens

MAX_BYTES = 64 << 20
"""Of what all grammars of a backend keep."""
_STATE_BYTES = 1024
_FOLLOWING_BYTES = 100
_MAX_PENDING = 32
"""Tokens told at once, in some 10 us."""
_MAX_TRAIL = 64
"""States that are remembered for ids that are taken back."""


class Places(Protocol):
    """Names of places in the outputs of a grammar: behind texts of the same name the same may
    come. ``first`` is that of the empty text."""

    @property
    def first(self) -> Hashable: ...

    def after(self, place: Any, token: bytes) -> Hashable | None:
        """The place behind a token that the grammar allows, empty for special ones: the object
        ``place`` itself where that changes nothing; None where nobody can say."""
        ...

    def is_common(self, place: Any) -> bool:
        """Whether other outputs may well come to a place."""
        ...

    def freed(self, place: Any) -> Hashable | None:
        """What a place inside of a string of JSON is called where any text may stand in it."""
        ...


class LibraryMatcher(GrammarMatcher, Protocol):
    """A matcher that may be told several ids at once."""

    def accept_all(self, token_ids: Sequence[int]) -> bool:
        """Takes the ids; False where the grammar does not allow them all."""
        ...


class State:
    """A place, None where it is not known. ``mask`` [W] and ``forced`` are None until they are
    known; ``following`` has the states behind tokens. States with the same ``mark`` have the same
    mask. One that is not ``is_shared`` is of one output alone, and keeps no mask."""

    __slots__ = ("following", "forced", "is_shared", "loops", "mark", "mask", "place")

    def __init__(self, place: Hashable | None, *, is_shared: bool) -> None:
        self.place = place
        self.is_shared = is_shared
        self.loops: bytearray | None = None
        """By id, 1 for tokens behind which the state is the same: inside of a string of any text,
        at the end of a character. ``following`` may have more of them."""
        self.mark: object = object()
        self.mask: Masks | None = None
        self.forced: list[int] | None = None
        self.following: dict[int, State] = {}


class StateMemory:
    """What all grammars of a backend know together. Beyond ``MAX_BYTES`` all of it is forgotten."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._masks: dict[bytes, Masks] = {}
        """By content: many states have the same."""
        self._holders: weakref.WeakSet[KnownStates] = weakref.WeakSet()

    def take(self, num_bytes: int, holder: KnownStates) -> None:
        """Makes room for what a grammar is about to keep."""
        if self.num_bytes + num_bytes > MAX_BYTES:
            for each in list(self._holders):
                each.forget()
            self._holders.clear()
            self._masks.clear()
            self.num_bytes = 0
        self.num_bytes += num_bytes
        self._holders.add(holder)

    def kept(self, mask: Masks, holder: KnownStates) -> Masks:
        """A copy that all states with this mask share."""
        content = mask.tobytes()
        kept = self._masks.get(content)
        if kept is None:
            self.take(len(content), holder)
            kept = self._masks[content] = np.frombuffer(content, dtype=np.int32)
        return kept


class KnownStates:
    """The states of one grammar. ``plain``: the tokens that change nothing inside of a string of
    any text, in JSON that has such; else None."""

    def __init__(
        self,
        places: Places,
        vocabulary: Vocabulary,
        memory: StateMemory,
        plain: PlainTokens | None = None,
    ) -> None:
        self._places = places
        self._tokens = vocabulary.tokens
        self._memory = memory
        self._plain = plain
        self._by_place: dict[Hashable, State] = {}

    def __del__(self) -> None:
        # States lead to themselves and back: without this they stay until a collection.
        self.forget()

    def root(self) -> State:
        """Where every output begins."""
        return self._at(self._places.first)

    def lost(self) -> State:
        """Somewhere. From there on the library is asked each time, but inside of free strings."""
        return State(None, is_shared=False)

    def after(self, state: State, token_id: int) -> State:
        """The state behind a token that the library has taken."""
        if not state.is_shared:
            return self.lost()
        place = self._places.after(state.place, self._tokens[token_id])
        if place is state.place:
            following = state
        elif place is None or not self._places.is_common(place):
            return self.lost()
        else:
            following = self._at(place)
        self._memory.take(_FOLLOWING_BYTES, self)
        if state.is_shared:
            state.following[token_id] = following
        return following

    def see(self, state: State, mask: Masks) -> None:
        """Is shown the mask [W] of a state."""
        if self._plain is not None and state.loops is None:
            freed = None if state.place is None else self._places.freed(state.place)
            if (state.place is None or freed is not None) and self._plain.are_allowed(mask):
                self._free(state, freed, self._plain)
        if state.is_shared and state.mask is None:
            state.mask = state.mark = self._memory.kept(mask, self)

    def _free(self, state: State, freed: Hashable | None, plain: PlainTokens) -> None:
        """What the string that is under way has so far does not matter."""
        state.loops, state.forced, state.place = plain.are_plain, [], freed
        if state.is_shared:
            same = self._by_place.setdefault(freed, state)
            state.mark, state.mask, state.following = same.mark, same.mask, same.following

    def _at(self, place: Hashable) -> State:
        state = self._by_place.get(place)
        if state is None:
            self._memory.take(_STATE_BYTES, self)
            state = self._by_place[place] = State(place, is_shared=True)
        return state

    def forget(self) -> None:
        """Lets all states go. Outputs that are at one of them go on alone."""
        for state in self._by_place.values():
            state.is_shared = False
            state.following.clear()
        self._by_place.clear()


class KnownStatesMatcher:
    """An output that goes by what is known of its grammar's states. The library is told tokens
    where it has to be asked, and none that lead to the state itself."""

    __slots__ = ("_counts", "_filled", "_library", "_pending", "_states", "_trail", "keeps_mask")

    def __init__(self, library: LibraryMatcher, states: KnownStates) -> None:
        self._library = library
        self._states = states
        self._trail = deque((states.root(),), _MAX_TRAIL)
        """The state, behind those before it."""
        self._counts = bytearray()
        """Of each token, 1 where the library knows it or has to."""
        self._pending: list[int] = []
        """Tokens that the library does not know yet."""
        self._filled: object = None
        """The mark of the state whose mask was filled last."""
        self.keeps_mask = False
        """Whether the state has the mask that was filled last."""

    def fill_bitmask(self, masks: Masks, index: int) -> None:
        """Writes the mask to ``masks[index]``."""
        state = self._trail[-1]
        if state.mask is not None:
            masks[index] = state.mask
        else:
            self._tell()
            self._library.fill_bitmask(masks, index)
            self._states.see(state, masks[index])
        self._filled, self.keeps_mask = state.mark, True

    def accept(self, token_id: int) -> bool:
        """Takes the next id, if it is allowed."""
        state = self._trail[-1]
        if state.loops is not None and state.loops[token_id]:
            following: State | None = state
        else:
            following = state.following.get(token_id)
        if following is state:
            self._counts.append(0)
        elif following is not None:
            self._counts.append(1)
            self._pending.append(token_id)
            if len(self._pending) >= _MAX_PENDING:
                self._tell()
        else:
            self._tell()
            if not self._library.accept(token_id):
                return False
            self._counts.append(1)
            following = self._states.after(state, token_id)
        self._trail.append(following)
        self.keeps_mask = following.mark is self._filled
        return True

    def rollback(self, num_tokens: int) -> None:
        """Takes ids back."""
        if not num_tokens:
            return
        num_known = self._counts[-num_tokens:].count(1)
        del self._counts[-num_tokens:]
        num_pending = min(num_known, len(self._pending))
        del self._pending[len(self._pending) - num_pending :]
        self._library.rollback(num_known - num_pending)
        if num_tokens < len(self._trail):
            for _ in range(num_tokens):
                self._trail.pop()
        else:
            self._trail.clear()
            self._trail.append(self._states.lost() if self._counts else self._states.root())
        self.keeps_mask = self._trail[-1].mark is self._filled

    def jump(self) -> list[int]:
        """As the library finds the text, where that is not known."""
        state = self._trail[-1]
        if state.forced is None:
            self._tell()
            state.forced = self._library.jump()
        return list(state.forced)

    def _tell(self) -> None:
        pending, self._pending = self._pending, []
        if pending and not self._library.accept_all(pending):
            raise RequestError("the grammar cannot go on with a text that it allowed")


def fill_known(
    matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
) -> list[int]:
    """Fills the masks of those that go by known states; returns the places of all others."""
    others = []
    for place, each in enumerate(matchers):
        if isinstance(each, KnownStatesMatcher):
            each.fill_bitmask(masks, indices[place])
        else:
            others.append(place)
    return others
