"""How single tokens look in logprobs: as a text, as bytes, as ``token_id:N``."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from jackfield.contracts.messages import TokenLogprobs
from jackfield.contracts.text import Tokenizer


class TokenText:
    """Names tokens for one server; ``as_ids`` writes all of them as ``token_id:N``."""

    def __init__(self, tokenizer: Tokenizer | None, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids or tokenizer is None

    def raw(self, token_id: int) -> bytes | None:
        """The token's exact bytes, part of a character or not; None without a tokenizer."""
        if self._tokenizer is None:
            return None
        raw = self._tokenizer.token_bytes(token_id)
        return self._tokenizer.decode([token_id]).encode() if raw is None else raw

    def text(self, token_id: int) -> str:
        """The token as a text; bytes that are no whole character show as U+FFFD."""
        raw = None if self._as_ids else self.raw(token_id)
        return f"token_id:{token_id}" if raw is None else raw.decode("utf-8", "replace")

    def key(self, token_id: int) -> str:
        """The token as a text that tells it from others: OpenAI's legacy completions write
        bytes that are no whole character as ``bytes:\\xe2\\x80``."""
        raw = None if self._as_ids else self.raw(token_id)
        if raw is None:
            return f"token_id:{token_id}"
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def chat_logprobs(
    entries: Iterable[TokenLogprobs], names: TokenText, num_top: int
) -> dict[str, object]:
    """OpenAI's chat shape: ``{"content": [{token, logprob, bytes, top_logprobs}, ...]}``; with
    ``num_top`` -1 all that an entry has are told."""
    shown = slice(None if num_top == -1 else num_top)

    def one(token_id: int, logprob: float) -> dict[str, object]:
        raw = names.raw(token_id)
        return {
            "token": names.text(token_id),
            "logprob": finite(logprob),
            "bytes": None if raw is None else list(raw),
        }

    content = [
        one(entry.token_id, entry.logprob)
        | {
            "top_logprobs": [
                one(top_id, logprob)
                for top_id, logprob in zip(
                    entry.top_ids[shown], entry.top_logprobs[shown], strict=True
                )
            ]
        }
        for entry in entries
    ]
    return {"content": content, "refusal": None}


class LegacyLogprobs:
    """The legacy completions shape of one choice, made piece by piece.

    ``text_offset`` is where the token begins in the choice's text: it counts the characters that
    the tokens before have completed.
    """

    def __init__(self, names: TokenText) -> None:
        self._names = names
        self._offset = 0
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def first_prompt_token(self, token_id: int) -> dict[str, list[object]]:
        """The piece of the first prompt token, which has no log-probability."""
        piece = self._empty()
        self._add(piece, token_id, None, None)
        return piece

    def piece(self, entries: Iterable[TokenLogprobs]) -> dict[str, list[object]]:
        """The pieces of further tokens."""
        piece = self._empty()
        for entry in entries:
            top: dict[str, float] = {}
            for top_id, logprob in zip(entry.top_ids, entry.top_logprobs, strict=True):
                top.setdefault(self._names.key(top_id), finite(logprob))
            top.setdefault(self._names.key(entry.token_id), finite(entry.logprob))
            self._add(piece, entry.token_id, finite(entry.logprob), top)
        return piece

    def _empty(self) -> dict[str, list[object]]:
        return {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}

    def _add(
        self,
        piece: dict[str, list[object]],
        token_id: int,
        logprob: float | None,
        top: dict[str, float] | None,
    ) -> None:
        text = self._names.key(token_id)
        piece["text_offset"].append(self._offset)
        piece["token_logprobs"].append(logprob)
        piece["tokens"].append(text)
        piece["top_logprobs"].append(top)
        raw = self._names.raw(token_id)
        self._offset += len(text if raw is None else self._characters.decode(raw))


def join_pieces(pieces: Iterable[dict[str, list[object]]]) -> dict[str, list[object]] | None:
    """Several pieces as one; None if there is none."""
    joined: dict[str, list[object]] | None = None
    for piece in pieces:
        if joined is None:
            joined = piece
        else:
            for name, values in piece.items():
                joined[name].extend(values)
    return joined


def prompt_logprobs_json(
    entries: Iterable[TokenLogprobs], names: TokenText
) -> list[dict[str, dict[str, object]] | None]:
    """vLLM's ``prompt_logprobs``: None for the first position, then id -> logprob, rank, text."""
    result: list[dict[str, dict[str, object]] | None] = [None]
    for entry in entries:
        position: dict[str, dict[str, object]] = {}
        chosen = (entry.token_id, entry.logprob, entry.rank)
        ranked = zip(
            entry.top_ids, entry.top_logprobs, range(1, 1 + len(entry.top_ids)), strict=True
        )
        for token_id, logprob, rank in (chosen, *ranked):
            position.setdefault(
                str(token_id),
                {
                    "logprob": finite(logprob),
                    "rank": rank,
                    "decoded_token": names.text(token_id),
                },
            )
        result.append(position)
    return result


def finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999.0 for a token that cannot come."""
    return logprob if logprob > -9999.0 else -9999.0
