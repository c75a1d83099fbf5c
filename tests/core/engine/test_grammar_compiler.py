"""Which compiled grammars are kept, and what becomes of those that come too late."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest
from tests.waiting import PATIENCE_SECONDS

import jackfield.engine.grammar_compiler as grammar_compiler
from jackfield.contracts.grammar import GrammarMatcher, GrammarSpec, Masks, Vocabulary
from jackfield.engine.grammar_compiler import Compilation, GrammarCompiler
from jackfield.errors import RequestError


class Sized:
    """A compiled grammar that notes how often its size is asked for."""

    def __init__(self, text: str, asked: Counter[str]) -> None:
        self._text, self._asked = text, asked

    @property
    def num_bytes(self) -> int:
        self._asked[self._text] += 1
        return 100 - len(self._text)

    def matcher(self) -> GrammarMatcher:
        raise AssertionError


class SizedBackend:
    name: ClassVar[str] = "sized"
    api_version: ClassVar[int] = 1

    def __init__(self, before: Callable[[str], object] = lambda text: None) -> None:
        self.compiled: list[str] = []
        self.asked: Counter[str] = Counter()
        self._before = before

    def compile(self, spec: GrammarSpec) -> Sized:
        self.compiled.append(spec.text)
        self._before(spec.text)
        return Sized(spec.text, self.asked)

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        raise AssertionError


def make(backend: SizedBackend) -> GrammarCompiler:
    return GrammarCompiler(lambda: Vocabulary((), {}), lambda name, vocabulary: backend, "sized")


def spec(text: str) -> GrammarSpec:
    return GrammarSpec(kind="regex", text=text)


def compile_whole(compiler: GrammarCompiler, text: str) -> None:
    future = compiler.compile(spec(text)).future
    assert future is not None
    future.result(PATIENCE_SECONDS)


def test_the_grammars_used_last_are_kept_as_far_as_their_bytes_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grammar_compiler, "MAX_CACHE_BYTES", 300)
    backend = SizedBackend()
    compiler = make(backend)
    for text in "abcda":
        compile_whole(compiler, text)
    assert backend.compiled == list("abcd")
    # The newest does not count yet: four are there.
    for text in "ecda":
        compile_whole(compiler, text)
    assert backend.compiled == list("abcde")
    for text in "bcdab":
        compile_whole(compiler, text)
    assert backend.compiled == list("abcdeb")
    # However many there are, each costs a new one nothing.
    assert max(backend.asked.values()) == 1


def test_grammars_that_nobody_waits_for_any_more_hold_no_other_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_end = threading.Event()
    backend = SizedBackend(lambda text: text[0] == "x" and may_end.wait(PATIENCE_SECONDS))
    compiler = make(backend)
    many: list[tuple[GrammarSpec, Compilation]] = []
    for number in range(50):
        many.append((spec(f"x{number}"), compiler.compile(spec(f"x{number}"))))
    monkeypatch.setattr(grammar_compiler, "QUEUE_SECONDS", -1.0)
    late = [each for each in many if each[1].began is None]
    assert len(late) >= 50 - grammar_compiler.NUM_THREADS
    for each in late:
        assert each[1].is_over
        compiler.forget(*each)
        # Also to another request that waits for the same one.
        with pytest.raises(RequestError, match="too many grammars"):
            each[1].result()
    may_end.set()
    compile_whole(compiler, "a")
    assert len(backend.compiled) <= 50 - len(late) + 1


def test_space_in_json_is_the_servers_where_a_request_says_nothing() -> None:
    seen: list[GrammarSpec] = []

    class Seeing(SizedBackend):
        def compile(self, spec: GrammarSpec) -> Sized:
            seen.append(spec)
            return super().compile(spec)

    compiler = GrammarCompiler(
        lambda: Vocabulary((), {}), lambda name, vocabulary: Seeing(), "sized", None, ""
    )
    for asked in (
        GrammarSpec(kind="json_schema", text="{}"),
        GrammarSpec(kind="json_schema", text="{}", whitespace=" ?"),
        GrammarSpec(kind="regex", text="a"),
    ):
        future = compiler.compile(asked).future
        assert future is not None
        future.result(PATIENCE_SECONDS)
    assert [each.whitespace for each in seen] == ["", " ?", None]
