"""What each token id adds to a text, remembered per tokenizer."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import cast

from jackfield.contracts.text import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>\Z")
_PROBED_IDS = 256

Piece = str | bytes | int
"""A token's share of the text: ``str``, whole characters; ``bytes``, part of a byte stream that
is decoded as one; ``int``, one byte of a run that is decoded as a whole or not at all."""


class TokenTexts(dict[int, Piece]):
    """Id to piece, filled when first asked; ids that are dropped or unknown give an empty str.

    Filling is idempotent, so threads may share a table.
    """

    def __init__(
        self, tokenizer: Tokenizer, skip_special_tokens: bool, kept: frozenset[int]
    ) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids - kept if skip_special_tokens else frozenset()
        # The tokenizer's own way of leaving tokens out knows no exceptions.
        self._skips_itself = skip_special_tokens and not kept & tokenizer.special_ids
        self.exact = any(tokenizer.token_bytes(id) is not None for id in range(_PROBED_IDS))
        """Whether ids have bytes of their own; else windows of ids are decoded."""

    def __missing__(self, token_id: int) -> Piece:
        piece = self[token_id] = self._piece(token_id)
        return piece

    def _piece(self, token_id: int) -> Piece:
        if token_id in self._skipped:
            return ""
        token = self._tokenizer.token_text(token_id)
        data = self._tokenizer.token_bytes(token_id)
        if not token:
            return ""
        if data is None:
            return self._tokenizer.decode([token_id])
        if len(data) == 1 and _BYTE_TOKEN.match(token):
            return data[0]
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these ids together, without those that are left out."""
        if not self._skips_itself:
            token_ids = [id for id in token_ids if id not in self._skipped]
        return self._tokenizer.decode(token_ids, skip_special_tokens=self._skips_itself)

    def adds_nothing(self, token_id: int) -> bool:
        """Whether decoding leaves the id out."""
        return token_id in self._skipped or not self._tokenizer.token_text(token_id)

    def last_kept(self, token_ids: Sequence[int], count: int) -> list[int]:
        """The last ``count`` ids that decoding does not leave out, in order."""
        kept: list[int] = []
        for token_id in reversed(token_ids):
            if len(kept) == count:
                break
            if not self.adds_nothing(token_id):
                kept.append(token_id)
        return kept[::-1]


def token_texts(
    tokenizer: Tokenizer, skip_special_tokens: bool, kept: frozenset[int] = frozenset()
) -> TokenTexts:
    """The table of a tokenizer, made once; special tokens in ``kept`` are not skipped."""
    return _cached(cast(Hashable, tokenizer), skip_special_tokens, kept)


# A cache, not state: a table is a pure function of its arguments, and tokenizers live as long
# as the process.
@lru_cache(maxsize=8)
def _cached(tokenizer: Hashable, skip_special_tokens: bool, kept: frozenset[int]) -> TokenTexts:
    return TokenTexts(cast(Tokenizer, tokenizer), skip_special_tokens, kept)
