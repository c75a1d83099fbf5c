"""Grammars by the llguidance library; needs ``pip install 'jackfield[guidance]'``.

It refuses what it cannot do. What it refuses though the schema does not need it is taken out
before, in ``guidance_texts``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from jackfield.contracts.grammar import GrammarMatcher, GrammarSpec, Masks, Vocabulary
from jackfield.errors import PluginError, RequestError
from jackfield_grammars.forced import MIN_BYTES, ForcedTexts
from jackfield_grammars.guidance_texts import source
from jackfield_grammars.texts import refuse

_END = b"<|end of output|>"
MAX_THREADS = 8
MIN_SHARED = 16
"""To wake threads costs more than fewer masks, of some 10 us each."""


class GuidanceMatcher:
    """One output. The library keeps an error in the matcher; here it becomes an exception."""

    __slots__ = ("_forced", "matcher")

    def __init__(self, matcher: Any, forced: ForcedTexts) -> None:
        self.matcher = matcher
        self._forced = forced

    def fill_bitmask(self, masks: Masks, index: int) -> None:
        """Writes the mask to ``masks[index]``."""
        row = masks[index]
        self.matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        self.check()

    def accept(self, token_id: int) -> bool:
        """Takes the next id, if it is allowed."""
        return bool(self.matcher.try_consume_tokens([token_id]) == 1)

    def rollback(self, num_tokens: int) -> None:
        """Takes ids back."""
        if num_tokens:
            self.matcher.rollback(num_tokens)

    def jump(self) -> list[int]:
        """As the library finds the text."""
        data = self.matcher.compute_ff_bytes()
        if len(data) < MIN_BYTES:
            return []
        try:
            text = data.decode()
        except UnicodeDecodeError:  # it ends within a character
            return []
        return self._forced.ids(text, self)

    def check(self) -> None:
        """Raises where the library has given up on this output."""
        if self.matcher.is_error():
            raise _given_up(self.matcher)


class GuidanceCompiled:
    """A compiled grammar: a matcher at the beginning, to be copied."""

    def __init__(self, matcher: Any, num_bytes: int, forced: ForcedTexts) -> None:
        self._matcher = matcher
        self.num_bytes = num_bytes
        self._forced = forced

    def matcher(self) -> GuidanceMatcher:
        """A matcher at the beginning."""
        return GuidanceMatcher(self._matcher.deep_copy(), self._forced)


class GuidanceBackend:
    """Compiles with llguidance."""

    name: ClassVar[str] = "guidance"
    api_version: ClassVar[int] = 1

    def __init__(self, vocabulary: Vocabulary) -> None:
        try:
            import llguidance  # an extra: only who asks for it must have it
        except ImportError:
            raise PluginError(
                "the grammars plugin 'guidance' needs llguidance: pip install 'jackfield[guidance]'"
            ) from None
        self._library: Any = llguidance
        self._forced = ForcedTexts(vocabulary)
        self._tokenizer: Any = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Tokens(vocabulary)), n_vocab=vocabulary.size + 1
        )
        self._num_threads = max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)) // 2))
        self._executor: Any = llguidance.LLExecutor(self._num_threads)

    def compile(self, spec: GrammarSpec) -> GuidanceCompiled:
        """Refuses what the library refuses."""
        matcher_class = self._library.LLMatcher
        try:
            grammar = source(spec, matcher_class)
        except ValueError as error:
            raise refuse(f"guidance: {error}") from error
        matcher = matcher_class(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            lines = matcher.get_error().strip().splitlines() or ["it is not accepted"]
            raise refuse(f"guidance: {lines[0][:300]}")
        return GuidanceCompiled(matcher, 64 * len(grammar), self._forced)

    def accept_tokens(
        self, matchers: Sequence[GrammarMatcher], token_ids: Sequence[int]
    ) -> Sequence[bool]:
        """One after the other, or where there are many in the library's threads."""
        own = [cast(GuidanceMatcher, each).matcher for each in matchers]
        if not self._shares_out(len(own)):
            return [
                each.try_consume_tokens([token_id]) == 1
                for each, token_id in zip(own, token_ids, strict=True)
            ]
        taken: list[bool] = self._executor.consume_token_par(list(zip(own, token_ids, strict=True)))
        return taken

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        """One after the other, or where there are many in the library's threads."""
        own = [cast(GuidanceMatcher, each).matcher for each in matchers]
        start, row_bytes = masks.ctypes.data, masks.strides[0]
        if self._shares_out(len(own)):
            pairs = list(zip(own, indices, strict=True))
            self._executor.unsafe_compute_mask_ptr(pairs, start, row_bytes, len(masks))
        else:
            for each, index in zip(own, indices, strict=True):
                each.unsafe_compute_mask_ptr(start + index * row_bytes, row_bytes)
        for each in own:
            if each.is_error():
                raise _given_up(each)

    def _shares_out(self, count: int) -> bool:
        return count >= MIN_SHARED and self._num_threads > 1


def _given_up(matcher: Any) -> RequestError:
    return RequestError(f"the grammar cannot go on: {matcher.get_error()[:200]}")


class _Tokens:
    """A vocabulary as the library wants to see it. The id behind it ends the output."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [*vocabulary.tokens, _END]
        self.eos_token_id = vocabulary.size
        self.bos_token_id = None
        names = {token_id: text for text, token_id in vocabulary.special.items()}
        for token_id, text in names.items():
            self.tokens[token_id] = text.encode()
        self.special_token_ids = [*names, vocabulary.size]
        self._encode = vocabulary.encode
        self._ids = {token: index for index, token in enumerate(vocabulary.tokens) if token}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: bytes | str) -> list[int]:
        """The ids with which the model would write a text: where the grammar forces one, the
        library allows no others."""
        data = text.encode() if isinstance(text, str) else text
        if self._encode is not None:
            try:
                ids = list(self._encode(data.decode()))
            except UnicodeDecodeError:  # a part of a character
                return self._greedily(data)
            if b"".join(self.tokens[each] for each in ids) == data:
                return ids
        return self._greedily(data)

    def _greedily(self, data: bytes) -> list[int]:
        """The longest token, again and again; a byte that no token has is left out."""
        ids = []
        place = 0
        while place < len(data):
            for size in range(min(self._longest, len(data) - place), 0, -1):
                found = self._ids.get(data[place : place + size])
                if found is not None:
                    ids.append(found)
                    break
            place += size
        return ids
