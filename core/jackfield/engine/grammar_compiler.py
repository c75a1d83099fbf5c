"""Grammars compiled off the step loop: a small pool of threads, a cache, a deadline."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from msgspec.structs import replace

from jackfield.contracts.grammar import (
    COMPILE_SECONDS,
    CompiledGrammar,
    GrammarBackend,
    GrammarSpec,
    LoadsLate,
    Vocabulary,
)
from jackfield.contracts.text import Tokenizer
from jackfield.errors import RAISED, JackfieldError, RequestError
from jackfield.text.out_of_reach import within_reach

log = logging.getLogger(__name__)

NUM_THREADS = 2
QUEUE_SECONDS = 20.0
"""How long a grammar may wait for a thread, the loading of the vocabulary included."""
MAX_CACHE_BYTES = 256 << 20
_PARAM = "structured_outputs"
_FIRST = (
    GrammarSpec(kind="json_schema", text='{"type": "boolean"}'),
    GrammarSpec(kind="regex", text="yes|no"),
)
"""Any grammars: it takes the vocabulary and the default backend to compile them, which may have a
library of its own for each kind."""
_SWITCH_SECONDS = 0.0005
"""For how long a thread that loads may hold the interpreter when the step loop wants it."""


@dataclass(frozen=True, slots=True)
class ReadyGrammar:
    """A compiled grammar and the backend that fills its masks."""

    compiled: CompiledGrammar
    backend: GrammarBackend


class Compilation:
    """A grammar on its way. Several requests may wait for one."""

    def __init__(self) -> None:
        self.submitted = time.monotonic()
        self.began: float | None = None
        self.future: Future[ReadyGrammar] | None = None
        self.num_bytes = 0
        """What it counts for in the cache."""

    @property
    def is_over(self) -> bool:
        """Whether ``result`` can be asked for: compiled, failed, or too late."""
        assert self.future is not None
        return self.future.done() or self._is_late()

    def result(self) -> ReadyGrammar:
        """The grammar; ``RequestError`` where there is none."""
        assert self.future is not None
        if self.future.done() and not self.future.cancelled():
            return self.future.result()
        if self.began is None:
            raise RequestError(
                "structured_outputs: too many grammars are being compiled; try again later", _PARAM
            )
        raise RequestError(
            f"structured_outputs: the grammar takes longer than {COMPILE_SECONDS:g} s to compile; "
            "make it smaller or nest it less",
            _PARAM,
        )

    def _is_late(self) -> bool:
        now = time.monotonic()
        if self.began is not None:
            return now - self.began > COMPILE_SECONDS
        return now - self.submitted > QUEUE_SECONDS


class GrammarCompiler:
    """Every grammar of an engine.

    ``vocabulary`` and ``make_backend`` (from a plugin's name) run in a thread of the pool when
    the first grammar comes: an engine without structured output pays nothing. Bounds that an
    answer of ``max_model_len`` tokens does not come to do not reach backends. ``json_whitespace``
    is that of schemas which say none.
    """

    def __init__(
        self,
        vocabulary: Callable[[], Vocabulary],
        make_backend: Callable[[str, Vocabulary], GrammarBackend],
        default_backend: str,
        max_model_len: int | None = None,
        json_whitespace: str | None = None,
    ) -> None:
        self._load_vocabulary = vocabulary
        self._make_backend = make_backend
        self._default = default_backend
        self._max_model_len = max_model_len
        self._whitespace = json_whitespace
        self._max_bytes: int | None = None
        """Of an answer, once that is known."""
        self._loading = threading.Lock()
        self._vocabulary: Vocabulary | None = None
        self._backends: dict[str, GrammarBackend] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._cache: OrderedDict[GrammarSpec, Compilation] = OrderedDict()
        self._num_bytes = 0
        self._not_counted: list[tuple[GrammarSpec, Compilation]] = []
        """Those whose bytes were not known yet."""

    def compile(self, spec: GrammarSpec) -> Compilation:
        """Starts, or finds, the compilation of a grammar. Called from the step loop's thread."""
        compilation = self._cache.get(spec)
        if compilation is not None:
            self._cache.move_to_end(spec)
            return compilation
        if self._pool is None:
            self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="grammar")
        compilation = Compilation()
        compilation.future = self._pool.submit(self._compile, spec, compilation)
        self._cache[spec] = compilation
        self._evict()
        self._not_counted.append((spec, compilation))
        return compilation

    def warm_up(self) -> None:
        """Loads, in a thread of the pool, what the first grammars need: seconds for a large
        vocabulary. What cannot be loaded is told to the first request that needs it."""
        for spec in _FIRST:
            self.compile(spec)

    def forget(self, spec: GrammarSpec, compilation: Compilation) -> None:
        """Drops a grammar that failed, so that the next request tries again. What is too late and
        has not begun is not begun any more: others wait behind it."""
        if self._cache.get(spec) is compilation:
            self._drop(spec)
        if compilation.future is not None:
            compilation.future.cancel()

    def _compile(self, spec: GrammarSpec, compilation: Compilation) -> ReadyGrammar:
        backend = self._backend(spec.backend or self._default)
        if spec.kind == "json_schema" and spec.whitespace is None:
            spec = replace(spec, whitespace=self._whitespace)
        if self._max_bytes is not None:
            spec = within_reach(spec, self._max_bytes)
        if isinstance(backend, LoadsLate):
            with self._loading, _yielding_often():
                backend.load(spec)
        compilation.began = time.monotonic()
        try:
            return ReadyGrammar(backend.compile(spec), backend)
        except RequestError:
            raise
        except RAISED as error:
            log.debug("a grammar could not be compiled", exc_info=error)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise RequestError(
                f"structured_outputs: the grammar cannot be compiled: {lines[0][:300]}", _PARAM
            ) from error

    def _backend(self, name: str) -> GrammarBackend:
        with self._loading:
            if name not in self._backends:
                with _yielding_often():
                    self._backends[name] = self._load(name)
            return self._backends[name]

    def _load(self, name: str) -> GrammarBackend:
        try:
            if self._vocabulary is None:
                self._vocabulary = self._load_vocabulary()
                if self._max_model_len is not None:
                    self._max_bytes = self._max_model_len * _longest(self._vocabulary)
            return self._make_backend(name, self._vocabulary)
        except JackfieldError as error:
            raise RequestError(f"structured_outputs: {error}", _PARAM) from error

    def _evict(self) -> None:
        """Drops the least recently used grammars beyond the cache's bytes. O(dropped + under
        way)."""
        waiting = self._not_counted
        self._not_counted = []
        for spec, compilation in waiting:
            future = compilation.future
            assert future is not None
            if self._cache.get(spec) is not compilation:
                continue
            if not future.done():
                self._not_counted.append((spec, compilation))
            elif future.exception() is not None:
                self._drop(spec)
            else:
                compilation.num_bytes = future.result().compiled.num_bytes + len(spec.text)
                self._num_bytes += compilation.num_bytes
        while self._num_bytes > MAX_CACHE_BYTES:
            self._drop(next(iter(self._cache)))

    def _drop(self, spec: GrammarSpec) -> None:
        self._num_bytes -= self._cache.pop(spec).num_bytes


def _longest(vocabulary: Vocabulary) -> int:
    """Bytes of the longest token."""
    special = (len(text.encode()) for text in vocabulary.special)
    return max(itertools.chain(map(len, vocabulary.tokens), special), default=0)


@contextmanager
def _yielding_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def read_vocabulary(tokenizer: Tokenizer, logits_width: int) -> Vocabulary:
    """The vocabulary that grammars need; ``RequestError`` where tokens are no exact bytes."""
    special = tokenizer.special_ids
    count = min(tokenizer.vocab_size, logits_width)
    tokens: list[bytes] = []
    for token_id in range(count):
        exact = b"" if token_id in special else tokenizer.token_bytes(token_id)
        if exact is None:
            raise RequestError(
                "this model's tokenizer does not say which bytes its tokens stand for, so that "
                "output cannot be held to a grammar",
                _PARAM,
            )
        tokens.append(exact)
    tokens += [b""] * (logits_width - count)
    named = {tokenizer.token_text(i): i for i in special if i < logits_width}

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    return Vocabulary(tuple(tokens), named, encode)
