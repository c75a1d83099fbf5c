"""Grammars by the xgrammar library, the default.

What it is known to get wrong (version 0.2.8, against JSON-Schema-Test-Suite) is refused or
rewritten before it sees it: ``xgrammar_schema`` for schemas, ``xgrammar_texts`` for the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from jackfield.contracts.grammar import GrammarMatcher, GrammarSpec, Masks, Vocabulary
from jackfield_grammars.forced import ForcedTexts
from jackfield_grammars.known_states import (
    KnownStates,
    KnownStatesMatcher,
    Places,
    StateMemory,
    fill_known,
)
from jackfield_grammars.regex_places import ChoicePlaces, FreeTextPlaces, RegexPlaces
from jackfield_grammars.repeats import may_force_much
from jackfield_grammars.schema_dialect import settled
from jackfield_grammars.texts import choices, is_ebnf, refuse
from jackfield_grammars.xgrammar_ebnf import schema_ebnf
from jackfield_grammars.xgrammar_schema import Rewritten, rewritten
from jackfield_grammars.xgrammar_tags import (
    MAX_WHITESPACE,
    exposed_specials,
    free_text_triggers,
    rewritten_tag,
)
from jackfield_grammars.xgrammar_texts import choice_ebnf, rewritten_regex

_MAX_TOKENIZERS = 4
_MAX_SERIAL = 128
_WHERE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")


class XGrammarMatcher:
    """One output."""

    __slots__ = ("_forced", "matcher")

    def __init__(self, matcher: Any, forced: ForcedTexts | None) -> None:
        self.matcher = matcher
        self._forced = forced

    def fill_bitmask(self, masks: Masks, index: int) -> None:
        """Writes the mask to ``masks[index]``."""
        self.matcher.fill_next_token_bitmask(masks, index)

    def accept(self, token_id: int) -> bool:
        """Takes the next id, if it is allowed."""
        return bool(self.matcher.accept_token(token_id))

    def accept_all(self, token_ids: Sequence[int]) -> bool:
        """Takes the next ids, if they are all allowed."""
        return all(map(self.accept, token_ids))

    def rollback(self, num_tokens: int) -> None:
        """Takes ids back."""
        if num_tokens:
            self.matcher.rollback(num_tokens)

    def jump(self) -> list[int]:
        """As the library finds the text: all of it, however long, so not where that may be much."""
        if self._forced is None:
            return []
        try:
            text = self.matcher.find_jump_forward_string()
        except UnicodeDecodeError:  # it ends within a character
            return []
        return self._forced.ids(text, self) if text else []


class XGrammarCompiled:
    """A compiled grammar. ``states`` are what is known of it."""

    def __init__(
        self,
        make_matcher: Any,
        compiled: Any,
        forced: ForcedTexts | None,
        states: KnownStates | None,
    ) -> None:
        self._make_matcher = make_matcher
        self._compiled = compiled
        self._forced = forced
        self._states = states

    @property
    def num_bytes(self) -> int:
        """As the library counts."""
        return int(self._compiled.memory_size_bytes)

    def matcher(self) -> XGrammarMatcher | KnownStatesMatcher:
        """A matcher at the beginning."""
        made = XGrammarMatcher(self._make_matcher(self._compiled), self._forced)
        return made if self._states is None else KnownStatesMatcher(made, self._states)


class XGrammarBackend:
    """Compiles with xgrammar. The library imports torch and transformers: in the engine only."""

    name: ClassVar[str] = "xgrammar"
    api_version: ClassVar[int] = 1

    def __init__(self, vocabulary: Vocabulary, *, narrows_long: bool = True) -> None:
        """``narrows_long``: long strings of limited length have no escapes, quotes or line ends;
        else they are refused, for who can do them."""
        import xgrammar  # slow, and it brings torch: only where a grammar is wanted

        self._narrows_long = narrows_long
        self._library: Any = xgrammar
        self._vocabulary = vocabulary
        self._forced = ForcedTexts(vocabulary)
        self._memory = StateMemory()
        self._num_threads = max(1, min(8, len(os.sched_getaffinity(0)) // 2))
        self._serial = xgrammar.BatchGrammarMatcher(max_threads=1)
        self._parallel = xgrammar.BatchGrammarMatcher(max_threads=self._num_threads)
        self._lock = threading.Lock()
        self._compilers: OrderedDict[frozenset[int], Any] = OrderedDict()

    def compile(self, spec: GrammarSpec) -> XGrammarCompiled:
        """Refuses what xgrammar is known not to do right."""
        try:
            compiled = self._compile(spec)
        except RuntimeError as error:
            lines = str(error).strip().splitlines() or ["it is not accepted"]
            raise refuse(f"xgrammar: {_WHERE.sub('', lines[0])[:300]}") from error
        make_matcher = self._library.GrammarMatcher
        forced = None if may_force_much(spec) else self._forced
        places = _places(spec)
        states = None
        if places is not None:
            states = KnownStates(places, self._vocabulary, self._memory)
        return XGrammarCompiled(make_matcher, compiled, forced, states)

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        """One after the other, or where there are many in the library's threads, which it starts
        anew each time."""
        places = fill_known(matchers, masks, indices)
        if not places:
            return
        batch = self._serial if len(places) <= _MAX_SERIAL else self._parallel
        libraries = _libraries([matchers[place] for place in places])
        batch.batch_fill_next_token_bitmask(libraries, masks, [indices[place] for place in places])

    def _compile(self, spec: GrammarSpec) -> Any:
        if spec.kind == "structural_tag":
            tag = json.loads(spec.text)
            exposed = exposed_specials(tag, self._vocabulary.special)
            tag = rewritten_tag(
                tag, lambda schema: self._ebnf(schema, None), narrows_long=self._narrows_long
            )
            return self._compiler(exposed).compile_structural_tag(json.dumps(tag))
        compiler = self._compiler(frozenset())
        if spec.kind == "json_schema":
            return self._compile_schema(compiler, spec)
        if spec.kind == "regex":
            return compiler.compile_regex(rewritten_regex(spec.text))
        if spec.kind == "choice":
            return compiler.compile_grammar(choice_ebnf(choices(spec)))
        if is_ebnf(spec.text):
            return compiler.compile_grammar(spec.text)
        return compiler.compile_lark(spec.text)

    def _compile_schema(self, compiler: Any, spec: GrammarSpec) -> Any:
        if spec.whitespace:
            raise refuse("xgrammar takes no whitespace_pattern but the empty one")
        schema = rewritten(settled(json.loads(spec.text)), narrows_long=self._narrows_long)
        if schema.strings:
            return compiler.compile_grammar(self._ebnf(schema, spec.whitespace))
        options = _json_options(spec.whitespace)
        return compiler.compile_json_schema(json.dumps(schema.schema), **options)

    def _ebnf(self, schema: Rewritten, whitespace: str | None) -> str:
        return schema_ebnf(
            self._library,
            schema.schema,
            schema.strings,
            schema.placeholder,
            _json_options(whitespace),
        )

    def _compiler(self, exposed: frozenset[int]) -> Any:
        """The compiler for a vocabulary in which these special tokens stand for their text."""
        with self._lock:
            compiler = self._compilers.get(exposed)
            if compiler is None:
                compiler = self._make_compiler(exposed)
                self._compilers[exposed] = compiler
                if len(self._compilers) > _MAX_TOKENIZERS:
                    self._compilers.popitem(last=False)
            self._compilers.move_to_end(exposed)
            return compiler

    def _make_compiler(self, exposed: frozenset[int]) -> Any:
        vocabulary, library = self._vocabulary, self._library
        tokens = list(vocabulary.tokens)
        for text, token_id in vocabulary.special.items():
            if token_id in exposed:
                tokens[token_id] = text.encode()
        # The id behind the vocabulary ends the output, as the contract has it.
        info = library.TokenizerInfo(
            [*tokens, b""],
            library.VocabType.RAW,
            vocab_size=vocabulary.size + 1,
            stop_token_ids=[vocabulary.size],
        )
        return library.GrammarCompiler(info, max_threads=self._num_threads, cache_enabled=False)


def _places(spec: GrammarSpec) -> Places | None:
    """For grammars whose places have names."""
    if spec.kind == "choice":
        return ChoicePlaces()
    if spec.kind == "structural_tag":
        triggers = free_text_triggers(json.loads(spec.text))
        return FreeTextPlaces([each.encode() for each in triggers]) if triggers else None
    if spec.kind == "regex":
        with contextlib.suppress(ValueError):
            return RegexPlaces(rewritten_regex(spec.text))
    return None


def _libraries(matchers: Sequence[GrammarMatcher]) -> list[Any]:
    return [each.matcher for each in cast(Sequence[XGrammarMatcher], matchers)]


def _json_options(whitespace: str | None) -> dict[str, Any]:
    """What xgrammar is told of JSON: objects as the schema says, a bounded run of space or none."""
    return {
        "any_whitespace": whitespace is None,
        "separators": None if whitespace is None else (",", ":"),
        "strict_mode": False,
        "max_whitespace_cnt": MAX_WHITESPACE if whitespace is None else None,
    }
