"""With which ids a text is written that a grammar forces."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from jackfield.contracts.grammar import GrammarMatcher, Vocabulary

MIN_BYTES = 6
"""A shorter text is a token or two, which need no help."""
MAX_CHARACTERS = 4096
"""Some milliseconds of the step loop; the next step may go on."""
_MIN_IDS = 2
_MAX_TEXTS = 512
"""Texts whose ids are kept."""


class ForcedTexts:
    """Writes texts as the model's tokenizer does.

    The end of a text is left to the model where a longer token might begin: what follows then
    decides how it is written.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._encode = vocabulary.encode
        self._tokens: Sequence[bytes] = vocabulary.tokens
        self._special = {token_id: text.encode() for text, token_id in vocabulary.special.items()}
        self._sorted: list[bytes] = []
        self._settled_ids: dict[str, list[int]] = {}
        """Of texts that came before: a grammar forces few, again and again."""

    def ids(self, text: str, matcher: GrammarMatcher) -> list[int]:
        """The ids, all of which the matcher takes one after the other; none for a short text, and
        of a long one the beginning."""
        text = text[:MAX_CHARACTERS]
        if self._encode is None or len(text.encode()) < MIN_BYTES:
            return []
        ids = self._settled_ids.get(text)
        if ids is None:
            if len(self._settled_ids) >= _MAX_TEXTS:
                self._settled_ids.clear()
            ids = self._settled(list(self._encode(text)), text.encode())
            self._settled_ids[text] = ids
        taken = 0
        while taken < len(ids) and matcher.accept(ids[taken]):
            taken += 1
        matcher.rollback(taken)
        return ids[:taken] if taken >= _MIN_IDS else []

    def _settled(self, ids: list[int], text: bytes) -> list[int]:
        """The ids whose tokens stay the same whatever follows."""
        pieces = [self._tokens[each] or self._special.get(each, b"") for each in ids]
        if b"".join(pieces) != text:
            # A tokenizer that adds or changes characters: nobody can say how this text goes on.
            return []
        tail, count = b"", len(ids)
        for place in range(len(ids) - 1, -1, -1):
            tail = pieces[place] + tail
            if self._begins_a_longer_token(tail):
                count = place
        return ids[:count]

    def _begins_a_longer_token(self, text: bytes) -> bool:
        if not self._sorted:
            self._sorted = sorted(token for token in self._tokens if token)
        place = bisect_right(self._sorted, text)
        return place < len(self._sorted) and self._sorted[place].startswith(text)
