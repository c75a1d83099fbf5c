"""Masks without the tokens that would write an item of an array again (``uniqueItems``).

No grammar says what ``uniqueItems`` does. So the text is followed beside the grammar, and where
an item of such an array is under way, the tokens that would end it as one that is there already
are taken out. Tokens that write a whole item at once are never allowed: what they write can be
written by shorter ones.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from jackfield.contracts.grammar import Masks, Vocabulary
from jackfield_grammars.json_text import ENDS, SPACE, JsonText, Level, value_of

Words = npt.NDArray[np.uint32]

_SCALAR = rb"(-?[0-9.eE+-]+|true|false|null)"
_CLOSED = re.compile(rb"\{.*\}|\[.*\]|[\s,\[:]" + _SCALAR + rb"[\s,\]}]", re.DOTALL)
_WHOLE = re.compile(rb"\".*\"|^" + _SCALAR + rb"[\s,\]}]", re.DOTALL)
_THREE_QUOTES = re.compile(rb"\".*\".*\"", re.DOTALL)
_TAIL = re.compile(rb"^([0-9.eE+-]*|r?u?e?|a?l?s?e?|u?l?l?)[\s,\]}]")
_MAX_LISTED = 2000


class UniqueTokens:
    """A vocabulary, looked at for what its tokens would end. Made once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = vocabulary.tokens
        self._sorted = sorted((token, i) for i, token in enumerate(self.tokens) if token)
        self._keys = [token for token, _ in self._sorted]
        words = vocabulary.mask_words
        closed = self._having(_CLOSED, words)
        self._in_string = closed | self._having(_THREE_QUOTES, words)
        self._outside = closed | self._having(_WHOLE, words)
        self._closing = {
            (byte, is_string): self._having(re.compile(start + re.escape(bytes((byte,)))), words)
            for byte in b"]}"
            for is_string, start in ((False, b""), (True, rb"(?s)\".*"))
        }
        self._tails: dict[bytes, list[int]] = {}
        """Tokens that may end a scalar, by what they add to it."""
        for token, token_id in self._sorted:
            tail = _TAIL.search(token)
            if tail:
                self._tails.setdefault(tail[1], []).append(token_id)

    def restrict(self, mask: Masks, text: JsonText) -> None:
        """Takes out of a mask [W] what would write an item again."""
        words = mask.view(np.uint32)
        is_string = text.mode in ("string", "name")
        words &= ~(self._in_string if is_string else self._outside)
        if not text.num_unique:
            return
        last = len(text.levels) - 1
        for depth, level in enumerate(text.levels):
            if not level.is_unique or not (level.known or level.texts):
                continue
            if depth < last:
                self._restrict_container(words, text, depth)
            elif level.texts is not None:
                self._restrict_listed(words, text, level)
            elif text.mode == "string":
                self._restrict_string(words, text.item, level)
            elif text.mode == "scalar":
                self._restrict_scalar(words, text.item, level)

    def _restrict_string(self, words: Words, item: bytes, level: Level) -> None:
        for known in level.known.values():
            if known.startswith(item):
                _clear(words, self._beginning_with(known[len(item) :]))

    def _restrict_scalar(self, words: Words, item: bytes, level: Level) -> None:
        tails: Iterable[bytes] = self._tails
        if level.has_integers and item not in (b"-", b"-0"):
            # Which are written in one way only.
            known = level.known.values()
            tails = [each[len(item) :] for each in known if each.startswith(item)]
        for tail in tails:
            if tail in self._tails and _is_known(item + tail, level):
                _clear(words, self._tails[tail])

    def _restrict_listed(self, words: Words, text: JsonText, level: Level) -> None:
        """The values are few: none is begun that must come to one that is there."""
        left = [each for each in level.texts or () if value_of(each) not in level.known]
        item = text.item if text.mode in ("string", "scalar") else b""
        is_after = text.mode == "after"
        ids = _ids(words)
        if len(ids) > _MAX_LISTED:
            ids = [i for i in ids if set(self.tokens[i]) & set(b'",]')]
        _clear(words, (i for i in ids if not _fits(item, self.tokens[i], left, is_after)))

    def _restrict_container(self, words: Words, text: JsonText, depth: int) -> None:
        """The item is an array or an object that is open."""
        level, inner = text.levels[depth], text.levels[depth + 1]
        if not inner.is_array and not _may_repeat(inner, level):
            return
        begun = bytes(text.text[level.start :])
        is_string = text.mode in ("string", "name")
        closing = self._closing[0x5D if inner.is_array else 0x7D, is_string]
        num_open = len(text.levels) - 1 - depth

        for token_id in _ids(words & closing):
            token = self.tokens[token_id]
            end = _end_of(token, text, num_open)
            if end and _is_known(begun + token[:end], level):
                _clear(words, [token_id])

    def _having(self, pattern: re.Pattern[bytes], num_words: int) -> Words:
        bits = np.zeros(num_words, dtype=np.uint32)
        for token, token_id in self._sorted:
            if pattern.search(token):
                bits[token_id >> 5] |= np.uint32(1 << (token_id & 31))
        return bits

    def _beginning_with(self, prefix: bytes) -> Iterable[int]:
        place = bisect_left(self._keys, prefix)
        while place < len(self._keys) and self._keys[place].startswith(prefix):
            yield self._sorted[place][1]
            place += 1


def _may_repeat(inner: Level, level: Level) -> bool:
    """Whether all properties of an object so far are those of an item that is there."""
    return any(inner.members <= known for known in level.known_members)


def _is_known(text: bytes, level: Level) -> bool:
    try:
        return value_of(text) in level.known
    except ValueError:
        return False


def _end_of(token: bytes, text: JsonText, num_open: int) -> int:
    """How many bytes of a token belong to the value that many levels up; 0 if it goes on."""
    is_string, is_escape = text.mode in ("string", "name"), text.is_escape
    for place, byte in enumerate(token):
        if is_escape:
            is_escape = False
        elif is_string:
            is_escape, is_string = byte == 0x5C, byte != 0x22
        elif byte == 0x22:
            is_string = True
        elif byte in b"[{":
            num_open += 1
        elif byte in b"]}":
            num_open -= 1
            if not num_open:
                return place + 1
    return 0


def _fits(item: bytes, token: bytes, left: Sequence[bytes], is_after: bool) -> bool:
    """Whether a token leads to items that are left. ``item`` is the one under way."""
    text = item + token if item else token.lstrip(SPACE)
    if not is_after:
        return (not item and text.startswith(b"]")) or _leads_to(text, left)
    return not text.startswith(b",") or _leads_on(text, left)


def _leads_to(text: bytes, left: Sequence[bytes]) -> bool:
    for each in left:
        if each.startswith(text):
            return True
        rest = text[len(each) :]
        if text.startswith(each) and (each.startswith(b'"') or rest[0] in ENDS):
            rest = rest.lstrip(SPACE)
            others = [other for other in left if other != each]
            return not rest.startswith(b",") or _leads_on(rest, others)
    return False


def _leads_on(text: bytes, left: Sequence[bytes]) -> bool:
    """The same behind an item, for a comma."""
    return bool(left) and _leads_to(text[1:].lstrip(SPACE), left)


def _clear(words: Words, ids: Iterable[int]) -> None:
    for token_id in ids:
        words[token_id >> 5] &= np.uint32(~(1 << (token_id & 31)) & 0xFFFFFFFF)


def _ids(words: Words) -> list[int]:
    found: list[int] = np.flatnonzero(
        np.unpackbits(words.view(np.uint8), bitorder="little")
    ).tolist()
    return found
