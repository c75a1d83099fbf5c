"""Whichever backend holds the output to a grammar exactly, chosen for each request.

xgrammar, which is always there, where it is known to be right; else guidance, if it is
installed.
"""

from __future__ import annotations

import importlib.util
import threading
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

_LARGE_CHARACTERS = 16384
"""A schema of this size may take xgrammar longer than a request may wait; guidance compiles as
it goes."""


class AutoBackend:
    """Makes the backends when they are first needed."""

    name: ClassVar[str] = "auto"
    api_version: ClassVar[int] = 1

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._xgrammar: XGrammarBackend | None = None
        self._guidance: GuidanceBackend | None = None
        self._has_guidance = importlib.util.find_spec("llguidance") is not None

    def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        """By the first backend that can; the first refusal where none can."""
        refusal: RequestError | None = None
        for backend in self._order(spec):
            try:
                return backend.compile(spec)
            except RequestError as error:
                refusal = refusal or error
        assert refusal is not None
        if not self._has_guidance:
            raise refuse(
                f"{_reason(refusal)}; pip install 'jackfield[guidance]' for a backend that may "
                "be able to"
            )
        raise refusal

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        """Each matcher by its own backend."""
        of_guidance = [isinstance(matcher, GuidanceMatcher) for matcher in matchers]
        for backend, wanted in ((self._guidance, True), (self._xgrammar, False)):
            chosen = [place for place, each in enumerate(of_guidance) if each is wanted]
            if chosen:
                own = [matchers[place] for place in chosen]
                places = [indices[place] for place in chosen]
                cast(GrammarBackend, backend).fill_bitmasks(own, masks, places)

    def _order(self, spec: GrammarSpec) -> list[GrammarBackend]:
        backends: list[GrammarBackend] = [self._make_xgrammar()]
        if self._has_guidance:
            is_large = spec.kind == "json_schema" and len(spec.text) > _LARGE_CHARACTERS
            backends.insert(0 if is_large else 1, self._make_guidance())
        return backends

    def _make_xgrammar(self) -> XGrammarBackend:
        with self._lock:
            if self._xgrammar is None:
                self._xgrammar = XGrammarBackend(self._vocabulary)
            return self._xgrammar

    def _make_guidance(self) -> GuidanceBackend:
        with self._lock:
            if self._guidance is None:
                self._guidance = GuidanceBackend(self._vocabulary)
            return self._guidance


def _reason(refusal: RequestError) -> str:
    return refusal.message.removeprefix("structured_outputs: ")
