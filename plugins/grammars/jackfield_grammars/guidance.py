"""Grammars by the llguidance library; needs ``pip install 'jackfield[guidance]'``.

It refuses what it cannot do. What it refuses though the schema does not need it is taken out
before, in ``guidance_texts``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar

from jackfield.contracts.grammar import GrammarMatcher, GrammarSpec, Masks, Vocabulary
from jackfield.errors import PluginError, RequestError
from jackfield_grammars.forced import MIN_BYTES, ForcedTexts
from jackfield_grammars.free_strings import PlainTokens
from jackfield_grammars.guidance_texts import source
from jackfield_grammars.json_path import SchemaPaths
from jackfield_grammars.json_places import JsonPlaces
from jackfield_grammars.json_text import JsonText
from jackfield_grammars.known_states import KnownStates, KnownStatesMatcher, StateMemory
from jackfield_grammars.repeats import MAX_FORCED, patterns_multiply
from jackfield_grammars.texts import refuse
from jackfield_grammars.unique_items import UniqueTokens

_END = b"<|end of output|>"


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
        num_taken: int = self.matcher.try_consume_tokens([token_id])
        return num_taken == 1

    def accept_all(self, token_ids: Sequence[int]) -> bool:
        """Takes the next ids, if they are all allowed."""
        num_taken: int = self.matcher.try_consume_tokens(token_ids)
        return num_taken == len(token_ids)

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
            raise RequestError(f"the grammar cannot go on: {self.matcher.get_error()[:200]}")


class UniqueItemsMatcher(GuidanceMatcher):
    """An output whose arrays may not have the same item twice."""

    __slots__ = ("_ids", "_paths", "_text", "_tokens")

    def __init__(
        self, matcher: Any, forced: ForcedTexts, tokens: UniqueTokens, paths: SchemaPaths
    ) -> None:
        super().__init__(matcher, forced)
        self._tokens, self._paths = tokens, paths
        self._ids: list[int] = []
        self._text = JsonText(paths)

    def fill_bitmask(self, masks: Masks, index: int) -> None:
        """Writes the mask to ``masks[index]``."""
        super().fill_bitmask(masks, index)
        self._tokens.restrict(masks[index], self._text)

    def accept(self, token_id: int) -> bool:
        """Takes the next id, if it is allowed."""
        if not super().accept(token_id):
            return False
        if self.follow(token_id):
            return True
        self.rollback(1)
        return False

    def rollback(self, num_tokens: int) -> None:
        """Takes ids back."""
        if not num_tokens:
            return
        super().rollback(num_tokens)
        ids, self._ids, self._text = self._ids[:-num_tokens], [], JsonText(self._paths)
        for token_id in ids:
            self.follow(token_id)

    def jump(self) -> list[int]:
        """Nothing where items may be written."""
        ids = GuidanceMatcher(self.matcher, self._forced).jump()
        has_items = any(b"[" in self._tokens.tokens[each] for each in ids)
        return [] if self._text.num_unique or has_items else ids

    def follow(self, token_id: int) -> bool:
        """An id that the grammar has taken; False where it wrote an item again."""
        self._ids.append(token_id)
        return self._text.feed(self._tokens.tokens[token_id])


class GuidanceCompiled:
    """A compiled grammar: a matcher at the beginning, to be copied. With ``unique`` the text is
    followed too; ``states`` are what is known of others."""

    def __init__(
        self,
        matcher: Any,
        num_bytes: int,
        forced: ForcedTexts,
        unique: tuple[UniqueTokens, SchemaPaths] | None = None,
        states: KnownStates | None = None,
    ) -> None:
        self.num_bytes = num_bytes
        self._states = states
        self._matcher = matcher
        self._forced = forced
        self._unique = unique

    def matcher(self) -> GuidanceMatcher | KnownStatesMatcher:
        """A matcher at the beginning."""
        copied = self._matcher.deep_copy()
        if self._unique is not None:
            return UniqueItemsMatcher(copied, self._forced, *self._unique)
        if self._states is not None:
            return KnownStatesMatcher(GuidanceMatcher(copied, self._forced), self._states)
        return GuidanceMatcher(copied, self._forced)


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
        self._vocabulary = vocabulary
        self._plain = PlainTokens(vocabulary)
        self._memory = StateMemory()
        self._made_unique_tokens: UniqueTokens | None = None
        self._making = threading.Lock()
        self._forced = ForcedTexts(vocabulary)
        self._tokenizer: Any = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Tokens(vocabulary)), n_vocab=vocabulary.size + 1
        )

    def compile(self, spec: GrammarSpec) -> GuidanceCompiled:
        """Refuses what the library refuses, at once or, after a second of the step loop, at the
        first mask."""
        if patterns_multiply(spec):
            raise refuse(f"guidance: a regex that repeats to more than {MAX_FORCED} characters")
        matcher_class = self._library.LLMatcher
        try:
            grammar = source(spec, matcher_class, self._vocabulary)
        except ValueError as error:
            raise refuse(f"guidance: {error}") from error
        matcher = matcher_class(self._tokenizer, grammar.text, log_level=0)
        if matcher.is_error():
            lines = matcher.get_error().strip().splitlines() or ["it is not accepted"]
            raise refuse(f"guidance: {lines[0][:300]}")
        num_bytes, schema = 64 * len(grammar.text), grammar.schema
        if grammar.unique is not None:
            unique = self._unique_tokens(), SchemaPaths(grammar.unique)
            return GuidanceCompiled(matcher, num_bytes, self._forced, unique)
        if schema is None:
            return GuidanceCompiled(matcher, num_bytes, self._forced)
        plain = self._plain if self._plain.can_be_free(schema) else None
        states = KnownStates(JsonPlaces(schema), self._vocabulary, self._memory, plain)
        return GuidanceCompiled(matcher, num_bytes, self._forced, states=states)

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        """One after the other: the library's threads, which wait for each other, take longer."""
        for each, index in zip(matchers, indices, strict=True):
            each.fill_bitmask(masks, index)

    def _unique_tokens(self) -> UniqueTokens:
        with self._making:
            if self._made_unique_tokens is None:
                self._made_unique_tokens = UniqueTokens(self._vocabulary)
            return self._made_unique_tokens


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
