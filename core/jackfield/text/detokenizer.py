"""Token ids to text, piece by piece, never splitting a character.

Law: the pieces of ``feed`` and ``finish`` together are what the whole decode has behind the
prompt, however the ids are split. Most tokens are whole characters and cost one dictionary
look-up. Bytes of unfinished characters are held until the next token settles them.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from jackfield.contracts.text import Tokenizer
from jackfield.text.token_texts import TokenTexts, token_texts

REPLACEMENT = "\ufffd"
_CONTEXT_IDS = 6
_MAX_HELD_IDS = 64


class Detokenizer:
    """Decodes one choice's output in the context of its prompt.

    ``skip_special_tokens`` leaves special tokens out, but for those whose ids are in ``kept``.
    ``spaces_between_special_tokens`` false writes special tokens that follow one another without
    the space some decoders put between.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
        kept: frozenset[int] = frozenset(),
    ) -> None:
        self._texts = token_texts(tokenizer, skip_special_tokens, kept)
        self._stream: _ByteStream | _Windows
        if self._texts.exact:
            self._stream = _ByteStream(self._texts, prompt_token_ids)
        else:
            joined = not spaces_between_special_tokens and not skip_special_tokens
            self._stream = _Windows(tokenizer, self._texts, prompt_token_ids, joined)

    def feed(self, token_ids: Sequence[int]) -> str:
        """The text that these ids settle; about 0.2 us a token."""
        stream = self._stream
        if len(token_ids) == 1:
            token_id = token_ids[0]
            if stream.plain:
                text = self._texts[token_id]
                if text.__class__ is str:  # cheaper than isinstance
                    return text
            return stream.add(token_id)
        return "".join([stream.add(token_id) for token_id in token_ids])

    def finish(self) -> str:
        """The text of what is still held; characters that stayed incomplete give U+FFFD."""
        return self._stream.finish()


class _ByteStream:
    """Ids with bytes of their own.

    Two kinds of unfinished text are held: ``_tail``, the bytes of an incomplete character in a
    byte-level vocabulary; ``_run``, consecutive byte tokens of a sentencepiece vocabulary, whose
    decoder takes the run as UTF-8 or, if it is not, as one U+FFFD a byte.
    """

    def __init__(self, texts: TokenTexts, prompt: Sequence[int]) -> None:
        self._texts = texts
        # At the start of a text some decoders drop a space, so the first piece is decoded
        # by the tokenizer itself.
        kept = texts.last_kept(prompt, 4)
        self._first_ids: list[int] | None = None if kept else []
        self._tail = _incomplete_tail(kept, texts)
        self._run = _trailing_run(prompt, texts)
        self._prompt_run_bytes = len(self._run)
        self.plain = self._is_plain()

    def _is_plain(self) -> bool:
        """Whether the next whole-character token is simply its own text."""
        return not self._tail and not self._run and self._first_ids is None

    def add(self, token_id: int) -> str:
        text = self._add(self._texts[token_id])
        if self._first_ids is not None:
            text = self._at_start(token_id, text)
        self.plain = self._is_plain()
        return text

    def _add(self, piece: str | bytes | int) -> str:
        if isinstance(piece, int):
            self._run.append(piece)
            return ""
        if not piece:
            return ""
        settled = self._settle_run()
        if isinstance(piece, str):
            if self._tail:
                piece = self._settle_tail() + piece
            return settled + piece
        data = self._tail + piece
        text, used = codecs.utf_8_decode(data, "replace", False)
        self._tail = data[used:]
        return settled + text

    def _at_start(self, token_id: int, text: str) -> str:
        assert self._first_ids is not None
        self._first_ids.append(token_id)
        if not text and self._texts[token_id] == "":
            return ""
        if self._tail or self._run:
            return ""
        ids, self._first_ids = self._first_ids, None
        return self._texts.decode(ids)

    def _settle_run(self) -> str:
        run, mine = self._run, self._prompt_run_bytes
        if not run:
            return ""
        self._run, self._prompt_run_bytes = bytearray(), 0
        try:
            run.decode()
        except UnicodeDecodeError:
            return REPLACEMENT * (len(run) - mine)
        return run[_complete_bytes(run[:mine]) :].decode()

    def finish(self) -> str:
        if self._first_ids is not None:
            ids, self._first_ids = self._first_ids, None
            return self._texts.decode(ids)
        if len(self._run) == self._prompt_run_bytes:
            self._run.clear()  # all of it is the prompt's
        return self._settle_run() + self._settle_tail()

    def _settle_tail(self) -> str:
        tail, self._tail = self._tail, b""
        return tail.decode("utf-8", "replace")


def _complete_bytes(data: bytes | bytearray) -> int:
    """Length of ``data`` without an incomplete character at its end."""
    return codecs.utf_8_decode(bytes(data), "replace", False)[1]


def _incomplete_tail(kept: Sequence[int], texts: TokenTexts) -> bytes:
    """Bytes of the incomplete character that the ids end with; output may complete it."""
    data = b""
    for token_id in reversed(kept):
        piece = texts[token_id]
        if not isinstance(piece, bytes):
            break
        data = piece + data
    while data and data[0] & 0xC0 == 0x80:
        data = data[1:]
    return data[_complete_bytes(data) :]


def _trailing_run(prompt: Sequence[int], texts: TokenTexts) -> bytearray:
    """The byte tokens that the prompt ends with."""
    run = bytearray()
    for token_id in reversed(prompt):
        piece = texts[token_id]
        if isinstance(piece, int):
            run.append(piece)
        elif piece:
            break
    run.reverse()
    return run


class _Windows:
    """Ids without bytes of their own: decodes the new ids behind a few settled ones and takes
    what is longer. Text that ends in U+FFFD is held, for at most ``_MAX_HELD_IDS`` ids."""

    plain = False

    def __init__(
        self,
        tokenizer: Tokenizer,
        texts: TokenTexts,
        prompt: Sequence[int],
        joins_special_tokens: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        self._joined = tokenizer.special_ids if joins_special_tokens else frozenset()
        self._ids = texts.last_kept(prompt, _CONTEXT_IDS)
        self._settled = len(self._ids)
        self._prefix = texts.decode(self._ids)

    def add(self, token_id: int) -> str:
        if self._texts.adds_nothing(token_id):
            return ""
        if token_id in self._joined and self._ids and self._ids[-1] in self._joined:
            text = self.finish() + self._tokenizer.token_text(token_id)
            self._restart([token_id])
            return text
        self._ids.append(token_id)
        whole = self._texts.decode(self._ids)
        held = len(self._ids) - self._settled
        if whole.endswith(REPLACEMENT) and held < _MAX_HELD_IDS:
            return ""
        return self._take(whole)

    def _take(self, whole: str) -> str:
        text = whole[len(self._prefix) :]
        self._restart(self._ids[self._settled :])
        return text

    def _restart(self, ids: list[int]) -> None:
        """The ids just settled become the context of the next ones."""
        self._ids = ids[-_CONTEXT_IDS:]
        self._settled = len(self._ids)
        self._prefix = self._texts.decode(self._ids)

    def finish(self) -> str:
        if len(self._ids) == self._settled:
            return ""
        return self._take(self._texts.decode(self._ids))
