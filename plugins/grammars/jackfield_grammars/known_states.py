"""What a grammar allows behind the texts that some output had already: masks and forced ids, kept.

Outputs of one grammar begin alike and come through the same places. A state is what is known of
such a place, and which tokens lead to which other state: where an output goes the way of one
before it, the library need not be asked, and is told the tokens later, several at once. Tokens
that lead to the state itself it is never told: what may follow is the same without them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jackfield.contracts.grammar import Masks, Vocabulary
from jackfield_grammars.free_strings import PlainTokens
from jackfield_grammars.json_places import JsonPlace, JsonPlaces

MAX_BYTES = 8 << 20
"""Of the masks that one grammar keeps."""
MAX_NAME_BYTES = 1024
"""A longer output comes to places that others seldom see."""
_MAX_FOLLOWING = 4096
_MAX_STATES = 4096


class State:
    """A place, None where it is not known. ``mask`` [W] and ``forced`` are None until they are
    known; ``following`` has the states behind tokens. States with the same ``mark`` have the same
    mask. One that is not ``is_shared`` is of one output alone, and keeps no mask."""

    __slots__ = ("following", "forced", "is_shared", "loops", "mark", "mask", "place")

    def __init__(self, place: JsonPlace | None, *, is_shared: bool) -> None:
        self.place = place
        self.is_shared = is_shared
        self.loops: bytearray | None = None
        """By id, 1 for tokens behind which the state is the same: inside of a string of any text,
        at the end of a character. ``following`` may have more of them."""
        self.mark: object = object()
        self.mask: Masks | None = None
        self.forced: list[int] | None = None
        self.following: dict[int, State] = {}


class KnownStates:
    """The states of one grammar over JSON. ``plain``: the tokens that change nothing inside of a
    string of any text; None where a keyword looks at texts."""

    def __init__(self, schema: Any, vocabulary: Vocabulary, plain: PlainTokens | None) -> None:
        self._places = JsonPlaces(schema)
        self._tokens = vocabulary.tokens
        self._mask_bytes = 4 * vocabulary.mask_words
        self._plain = plain
        self._by_place: dict[JsonPlace, State] = {}
        self._masks: dict[bytes, Masks] = {}
        """By content: many states have the same."""

    @property
    def num_bytes(self) -> int:
        """Memory of the masks."""
        return len(self._masks) * self._mask_bytes

    def root(self) -> State:
        """Where every output begins."""
        return self._at(JsonPlace())

    def lost(self) -> State:
        """Somewhere."""
        return State(None, is_shared=False)

    def after(self, state: State, token_id: int) -> State:
        """The state behind a token that the library has taken."""
        if state.place is None:
            return self.lost()
        place = self._places.after(state.place, self._tokens[token_id])
        if place == state.place:
            following = state
        elif len(place.text) > MAX_NAME_BYTES or not state.is_shared:
            return State(place.without_beginning(), is_shared=False)
        else:
            following = self._at(place)
        if state.is_shared and len(state.following) < _MAX_FOLLOWING:
            state.following[token_id] = following
        return following

    def see(self, state: State, mask: Masks) -> None:
        """Is shown the mask [W] of a state."""
        place = state.place
        if self._plain is not None and (place is None or place.start >= 0):
            if state.loops is None and self._plain.are_allowed(mask):
                self._free(state, self._plain)
        if state.is_shared and state.mask is None:
            state.mask = state.mark = self._kept(mask)

    def _kept(self, mask: Masks) -> Masks:
        """A copy that all states with this mask share."""
        content = mask.tobytes()
        kept = self._masks.get(content)
        if kept is None:
            if len(self._masks) >= MAX_BYTES // self._mask_bytes:
                self._forget()
            kept = self._masks[content] = np.frombuffer(content, dtype=np.int32)
        return kept

    def _free(self, state: State, plain: PlainTokens) -> None:
        """What the string that is under way has so far does not matter."""
        state.loops, state.forced = plain.are_plain, []
        if state.place is None:
            return
        state.place = state.place.freed()
        if state.is_shared:
            same = self._by_place.setdefault(state.place, state)
            state.mark, state.mask, state.following = same.mark, same.mask, same.following

    def _at(self, place: JsonPlace) -> State:
        state = self._by_place.get(place)
        if state is None:
            if len(self._by_place) >= _MAX_STATES:
                self._forget()
            state = self._by_place[place] = State(place, is_shared=True)
        return state

    def _forget(self) -> None:
        """All states. Outputs that are at one of them go on alone."""
        for state in self._by_place.values():
            state.is_shared = False
            state.following.clear()
        self._by_place.clear()
        self._masks.clear()
