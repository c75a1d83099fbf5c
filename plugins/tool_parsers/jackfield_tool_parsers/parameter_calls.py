"""Calls whose arguments are texts between tags: ``<parameter=key>value</parameter>``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jackfield.contracts.text import ParserContext
from jackfield_tool_parsers.arguments import JsonWriter
from jackfield_tool_parsers.json_scanner import JsonScanner
from jackfield_tool_parsers.markers import Markers
from jackfield_tool_parsers.named_calls import MAX_NAME, NamedCalls, cleaned_name
from jackfield_tool_parsers.source import Wait
from jackfield_tool_parsers.table import ToolFormat
from jackfield_tool_parsers.typed_text import (
    STRING,
    Types,
    completed_json,
    json_types,
    only_texts,
    to_json,
)

_MAX_KEY = 4096


class ParameterCalls(NamedCalls):
    """A value's type comes from the markers where they say it, else from the tool's schema; so it
    does where the schema has no strings and they say it is one, as xgrammar does for ``anyOf``.
    Strings stream as they arrive, other values are written when they are complete."""

    keeps_name_end: ClassVar[frozenset[str]]
    """What ends a name and is read again."""
    parameter_opener: ClassVar[Markers]
    ends: ClassVar[Markers]
    """What ends a call."""
    key_ends: ClassVar[Markers]
    value_ends: ClassVar[Markers]
    value_breaks: ClassVar[frozenset[str]]
    """Those of them that are read again."""

    @classmethod
    def tables(cls, made: ToolFormat) -> dict[str, Any]:
        attributes = super().tables(made)
        opener = made.parameter_open.strip()
        closers = attributes["closers"]
        value_ends = [each.strip("\n") for each in made.value_end]
        # Where each value has lines of its own, these tell that its end was forgotten.
        breaks = ["\n" + opener, "".join(made.call_close).strip()] if made.newlines else []
        return attributes | {
            "name_ends": Markers([*(each.strip() for each in made.name_end), opener, *closers]),
            "keeps_name_end": closers | {opener},
            "parameter_opener": Markers([opener]),
            "ends": Markers(closers),
            "key_ends": Markers(made.key_end),
            "value_ends": Markers([*value_ends, *breaks], newline=made.newlines),
            "value_breaks": frozenset(breaks),
        }

    def __init__(self, context: ParserContext) -> None:
        self._writer = JsonWriter()
        self._pieces: list[str] | None = None  # of a value that does not stream
        self._types: Types | None = None
        super().__init__(context)

    def read_call(self, opener: str) -> Wait[None]:
        source, self._writer = self.source, JsonWriter()
        if (yield from self.read_json_call(opener)):
            return
        text, end = yield from source.all_before(self.name_ends, MAX_NAME)
        name = cleaned_name(text, self.format)
        self.know(name)
        if end in self.keeps_name_end:
            source.unread_marker()
        schema = self.schemas.get(name, {})
        while (yield from source.accept(self.parameter_opener)) is not None:
            if not self.calls.is_open:
                self._open()
            yield from self._read_parameter(schema)
        if not self.calls.is_open:
            yield from self._expect_end()
            self._open()
        self._writer.close()
        self.calls.arguments(self._writer.take())
        self.calls.end()

    def _open(self) -> None:
        self.start()
        self._writer.open("{")

    def _expect_end(self) -> Wait[None]:
        """A name without parameters is a call only if the call is closed."""
        yield from self.source.expect(self.ends)
        self.source.unread_marker()

    def closing(self) -> str:
        if self._written is not None:
            return super().closing()
        if self._pieces is not None:
            text = "".join(self._pieces)
            self._pieces = None
            if text.strip():
                self._writer.value(completed_json(text, self._types))
        return self._writer.take() + (self._writer.closing() or "{}")

    # --- one parameter -----------------------------------------------------------------

    def _read_parameter(self, schema: Mapping[str, object]) -> Wait[None]:
        self.calls.arguments(self._writer.take())
        key, end = yield from self.source.all_before(self.key_ends, _MAX_KEY)
        key = key.strip()
        self._writer.key(key)
        kind = self.format.key_end[end]
        properties = schema.get("properties")
        said = properties.get(key) if isinstance(properties, Mapping) else None
        self._types = None if kind == "json" else json_types(said, schema)
        if kind == "string" and (self._types is None or "string" in self._types):
            self._types = STRING
        ends = self.value_ends
        if self.format.newlines:
            yield from self._skip_newline()
        # Of texts that are listed none has whitespace around it, whatever the model writes.
        listed = only_texts(said, schema)
        if self._types == STRING and not listed:
            yield from self._stream_string(ends)
        else:
            yield from self._collect(ends, listed)

    def _skip_newline(self) -> Wait[None]:
        if (yield from self.source.peek()) == "\n":
            self.source.at += 1

    def _stream_string(self, ends: Markers) -> Wait[None]:
        writer, calls = self._writer, self.calls
        writer.open('"')
        which = None
        while which is None:
            text, which = yield from self.source.before(ends)
            writer.text(text)
            calls.arguments(writer.take())
        if which in self.value_breaks:
            self.source.unread_marker()
        writer.close()

    def _collect(self, ends: Markers, listed: frozenset[str]) -> Wait[None]:
        self._pieces = []
        json = JsonScanner()
        while True:
            text, which = yield from self.source.before(ends)
            self._pieces.append(text)
            json.scan(text)
            if which is None:
                continue
            if not json.in_inner_string:
                if which in self.value_breaks:
                    self.source.unread_marker()
                break
            # What looks like the value's end stands in a string of its JSON.
            self._pieces.append(self.source.marker_text())
            json.scan(self._pieces[-1])
        text = "".join(self._pieces)
        self._pieces = None
        if text not in listed and text.strip() in listed:
            text = text.strip()
        self._writer.value(to_json(text, self._types))
