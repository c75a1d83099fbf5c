"""Whichever backend holds the output to a grammar exactly, chosen for each request.

For JSON Schema that is guidance, if it is installed: it keeps more of it, compiles in milliseconds
and fills masks while the interpreter goes on. For everything else, and what it refuses, xgrammar,
which is always there; what that refuses goes to guidance.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import ClassVar, cast

from jackfield.contracts.grammar import (
    CompiledGrammar,
    GrammarBackend,
    GrammarMatcher,
    GrammarSpec,
    Masks,
    Vocabulary,
)
from jackfield.errors import RequestError
from jackfield_grammars.guidance import GuidanceBackend, GuidanceMatcher
from jackfield_grammars.texts import refuse
from jackfield_grammars.xgrammar import XGrammarBackend


class AutoBackend:
    """The backends that are installed."""

    name: ClassVar[str] = "auto"
    api_version: ClassVar[int] = 1

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._xgrammar = XGrammarBackend(vocabulary)
        has_guidance = importlib.util.find_spec("llguidance") is not None
        self._guidance = GuidanceBackend(vocabulary) if has_guidance else None

    def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        """By the first backend that can."""
        reasons: list[str] = []
        for backend in self._order(spec):
            try:
                return backend.compile(spec)
            except RequestError as error:
                reasons.append(error.message.removeprefix("structured_outputs: "))
        if self._guidance is None:
            reasons.append(
                "pip install 'jackfield[guidance]' adds a backend that may be able to do it"
            )
        raise refuse("; ".join(reasons))

    def accept_tokens(
        self, matchers: Sequence[GrammarMatcher], token_ids: Sequence[int]
    ) -> Sequence[bool]:
        """Each matcher by its own backend."""
        taken = [True] * len(matchers)
        of_guidance = []
        for place, (matcher, token_id) in enumerate(zip(matchers, token_ids, strict=True)):
            if isinstance(matcher, GuidanceMatcher):
                of_guidance.append(place)
            else:
                taken[place] = matcher.accept(token_id)
        if of_guidance and self._guidance is not None:
            own, ids = [matchers[i] for i in of_guidance], [token_ids[i] for i in of_guidance]
            for place, each in zip(
                of_guidance, self._guidance.accept_tokens(own, ids), strict=True
            ):
                taken[place] = each
        return taken

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        """Each matcher by its own backend."""
        of_guidance = [isinstance(matcher, GuidanceMatcher) for matcher in matchers]
        for backend, wanted in ((self._guidance, True), (self._xgrammar, False)):
            chosen = [place for place, each in enumerate(of_guidance) if each is wanted]
            if len(chosen) == len(matchers):
                cast(GrammarBackend, backend).fill_bitmasks(matchers, masks, indices)
            elif chosen:
                own = [matchers[place] for place in chosen]
                places = [indices[place] for place in chosen]
                cast(GrammarBackend, backend).fill_bitmasks(own, masks, places)

    def _order(self, spec: GrammarSpec) -> list[GrammarBackend]:
        if self._guidance is None:
            return [self._xgrammar]
        if spec.kind == "json_schema":
            return [self._guidance, self._xgrammar]
        return [self._xgrammar, self._guidance]
