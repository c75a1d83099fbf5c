"""Calls whose arguments are literals of another language than JSON: Python's, or Gemma's.

``[f(a=1), g(b="x")]`` and ``<|tool_call>call:f{a:1,b:<|"|>x<|"|>}<tool_call|>``. Read as they
arrive; nothing is ever run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, ClassVar

from jackfield.contracts.text import ParserContext
from jackfield_tool_parsers.arguments import JsonWriter
from jackfield_tool_parsers.literals import (
    KEYWORD,
    PYTHON,
    Dialect,
    delimited,
    read_members,
    read_value,
)
from jackfield_tool_parsers.markers import Markers
from jackfield_tool_parsers.named_calls import MAX_NAME, NAME
from jackfield_tool_parsers.scanner import CallScanner
from jackfield_tool_parsers.source import Broken, Source, Truncated, Wait
from jackfield_tool_parsers.table import ToolFormat

_FUNCTION = re.compile(r"[\w.-]*")


def wrong(source: Source) -> Broken:
    """What to raise where something else was expected."""
    return Truncated() if source.at == len(source.text) else Broken()


class LiteralCalls(CallScanner):
    """What both languages share: a writer that can close the arguments at any time."""

    def __init__(self, context: ParserContext) -> None:
        self._writer = JsonWriter()
        super().__init__(context)

    def closing(self) -> str:
        return self._writer.take() + (self._writer.closing() or "{}")

    def begin(self) -> None:
        """The call and its arguments start."""
        self.start()
        self._writer.open("{")

    def finish_call(self) -> None:
        """The call's closing bracket was read."""
        self._writer.close()
        self._pass()
        self.calls.end()

    def stream(self, reading: Wait[None]) -> Wait[None]:
        """Reads on and passes on what has been read whenever more text is awaited."""
        for _ in reading:
            self._pass()
            yield

    def _pass(self) -> None:
        self.calls.arguments(self._writer.take())


class PythonicCalls(LiteralCalls):
    """A list of calls with keyword arguments, or one call a line."""

    calls_begin_with_name = True

    @classmethod
    def tables(cls, made: ToolFormat) -> dict[str, Any]:
        attributes = super().tables(made)
        tokens = [*attributes["tokens"].all, "[", ",", "]"]
        closers = attributes["closers"] | {"]"}
        return attributes | {
            "tokens": Markers(tokens),
            "closers": closers,
            "call_openers": frozenset({""}),
        }

    def read_call(self, opener: str) -> Wait[None]:
        source, self._writer = self.source, JsonWriter()
        name = yield from source.match(_FUNCTION)
        if len(name) > MAX_NAME or (yield from source.peek()) != "(":
            raise wrong(source)
        self.know(name)
        source.at += 1
        yield from self.stream(read_keywords(source, self._writer, self._begin_once))
        self._begin_once()
        self.finish_call()

    def _begin_once(self) -> None:
        if not self.calls.is_open:
            self.begin()


def read_keywords(source: Source, writer: JsonWriter, begin: Callable[[], None]) -> Wait[None]:
    """Reads ``a=1, b="x")``; ``begin`` is called before the first value is written."""
    while (character := (yield from source.skip_space())) != ")":
        key = yield from source.match(KEYWORD)
        if not key or (yield from source.skip_space()) != "=":
            raise wrong(source)
        source.at += 1
        begin()
        writer.key(key)
        yield from read_value(source, writer, PYTHON)
        character = yield from source.skip_space()
        if character == ",":
            source.at += 1
        elif character != ")":
            raise wrong(source)
    source.at += 1


def read_python_calls(text: str) -> list[dict[str, object]]:
    """The calls of a whole list, ``[f(a=1), g()]``; ``ValueError`` for anything else."""
    source = Source()
    source.text, source.ended = text, True
    calls: list[dict[str, object]] = []
    try:
        for _ in _read_list(source, calls):
            raise AssertionError("all of the text is there")
    except Broken:
        raise ValueError("the text is no list of calls") from None
    return calls


def _read_list(source: Source, calls: list[dict[str, object]]) -> Wait[None]:
    opening = Markers(["["])
    yield from source.expect(opening)
    following = Markers(["]", ","])
    while (yield from source.skip_space()) != "]":
        name = yield from source.match(_FUNCTION)
        if not name or (yield from source.peek()) != "(":
            raise Broken
        source.at += 1
        writer = JsonWriter()
        writer.open("{")
        yield from read_keywords(source, writer, lambda: None)
        writer.close()
        calls.append({"name": name, "arguments": json.loads(writer.take())})
        if (yield from source.expect(following)) == "]":
            break


class FieldCalls(LiteralCalls):
    """``name{key:value,...}``, strings between delimiters."""

    name_ends: ClassVar[Markers] = Markers(["{"])
    dialect: ClassVar[Dialect]

    @classmethod
    def tables(cls, made: ToolFormat) -> dict[str, Any]:
        return super().tables(made) | {"dialect": delimited(*made.delimiters)}

    def read_call(self, opener: str) -> Wait[None]:
        source, self._writer = self.source, JsonWriter()
        text, _ = yield from source.all_before(self.name_ends, MAX_NAME)
        if not NAME.fullmatch(text.strip()):
            raise Broken
        self.know(text.strip())
        self.begin()
        yield from self.stream(read_members(source, self._writer, self.dialect))
        source.at += 1
        self.finish_call()
