"""Whichever backend holds the output to a grammar exactly, chosen for each request.

For JSON Schema that is guidance, if it is installed: it keeps more of it, compiles in milliseconds
and fills masks while the interpreter goes on. For everything else, and what it refuses, xgrammar,
which is always there; what that refuses goes to guidance.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

from jackfield.contracts.grammar import (
    CompiledGrammar,
    GrammarMatcher,
    GrammarSpec,
    Masks,
    Vocabulary,
)
from jackfield.errors import RequestError
from jackfield_grammars.guidance import GuidanceBackend, GuidanceMatcher
from jackfield_grammars.known_states import fill_known
from jackfield_grammars.texts import refuse
from jackfield_grammars.xgrammar import XGrammarBackend, XGrammarMatcher


class AutoBackend:
    """The backends that are installed."""

    name: ClassVar[str] = "auto"
    api_version: ClassVar[int] = 1

    def __init__(self, vocabulary: Vocabulary) -> None:
        has_guidance = importlib.util.find_spec("llguidance") is not None
        self._vocabulary = vocabulary
        self._guidance = GuidanceBackend(vocabulary) if has_guidance else None
        self._xgrammar: XGrammarBackend | None = None
        self._making = threading.Lock()

    def load(self, spec: GrammarSpec) -> None:
        """Imports xgrammar, which takes seconds, for the first grammar that guidance does not
        take."""
        if self._xgrammar is not None:
            return
        if self._guidance is not None and spec.kind == "json_schema":
            try:
                self._guidance.compile(spec)
                return
            except RequestError:
                pass
        self._with_xgrammar()

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

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        """Each matcher by its own backend."""
        others = fill_known(matchers, masks, indices)
        of_guidance = [each for each in others if isinstance(matchers[each], GuidanceMatcher)]
        of_xgrammar = [each for each in others if isinstance(matchers[each], XGrammarMatcher)]
        for backend, places in ((self._guidance, of_guidance), (self._xgrammar, of_xgrammar)):
            if backend is not None and places:
                own = [matchers[place] for place in places]
                backend.fill_bitmasks(own, masks, [indices[place] for place in places])

    def _order(self, spec: GrammarSpec) -> Iterator[GuidanceBackend | XGrammarBackend]:
        if self._guidance is not None and spec.kind == "json_schema":
            yield self._guidance
        yield self._with_xgrammar()
        if self._guidance is not None and spec.kind != "json_schema":
            yield self._guidance

    def _with_xgrammar(self) -> XGrammarBackend:
        with self._making:
            if self._xgrammar is None:
                self._xgrammar = XGrammarBackend(
                    self._vocabulary, narrows_long=self._guidance is None
                )
            return self._xgrammar
