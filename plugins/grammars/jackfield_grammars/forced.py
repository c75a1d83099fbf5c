"""Which ids a grammar forces, found from its masks."""

from __future__ import annotations

import numpy as np

from jackfield.contracts.grammar import GrammarMatcher

MAX_FORCED = 64


def forced_ids(matcher: GrammarMatcher, vocabulary_size: int) -> list[int]:
    """Ids that are, each in its turn, the only thing allowed; the matcher is left as it was."""
    masks = np.empty((1, vocabulary_size // 32 + 1), dtype=np.int32)
    forced: list[int] = []
    while len(forced) < MAX_FORCED:
        matcher.fill_bitmask(masks, 0)
        only = _only_bit(masks[0].view(np.uint32))
        if only is None or only >= vocabulary_size or not matcher.accept(only):
            break
        forced.append(only)
    matcher.rollback(len(forced))
    return forced


def _only_bit(words: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> int | None:
    places = np.flatnonzero(words)
    if len(places) != 1:
        return None
    word = int(words[places[0]])
    return None if word & (word - 1) else int(places[0]) * 32 + word.bit_length() - 1
