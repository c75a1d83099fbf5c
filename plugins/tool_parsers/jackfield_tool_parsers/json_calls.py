"""Calls that are JSON objects: ``{"name": ..., "arguments": {...}}``, single or in an array."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jackfield_tool_parsers.json_scanner import JsonScanner
from jackfield_tool_parsers.markers import Markers
from jackfield_tool_parsers.scanner import CallScanner
from jackfield_tool_parsers.source import Broken, Truncated, Wait
from jackfield_tool_parsers.table import ToolFormat

_OTHER_KEYS = ("type", "id", "index", "tool_call_id")
"""What may stand before the name where calls have no marker to tell them from other objects."""


class JsonCalls(CallScanner):
    """Keys in any order; those but the name and the arguments are skipped. Arguments that are an
    object stream; a string that holds one is unpacked when it is complete; none or null are
    ``{}``; anything else is no call."""

    _written: JsonScanner | None = None  # the open call's arguments
    _taken = False

    @classmethod
    def tables(cls, made: ToolFormat) -> dict[str, Any]:
        attributes = super().tables(made)
        # What opens a call is its brace; the format's own marker stands before it.
        attributes["call_openers"] = frozenset()
        return attributes | with_brackets(attributes)

    def read_call(self, opener: str) -> Wait[None]:
        if self.format.name_is_key:
            yield from self._read_keyed()
        else:
            yield from self._read_object()

    def know(self, name: str, call_id: str = "") -> None:
        if not name or not _is_unicode(name):
            raise Broken
        super().know(name, call_id)
        self._written, self._taken = None, False

    def closing(self) -> str:
        if self._written is None or not self._taken:
            return "" if self._taken else "{}"
        return "" if self._written.done else self._written.closing()

    def lost(self) -> str:
        return "" if self._written is None else self._written.held()

    # --- an object, behind its brace ---------------------------------------------------

    def _read_object(self) -> Wait[None]:
        arguments: JsonScanner | str | None = None  # complete, before the name is known
        seen_name = seen_arguments = False
        while (key := (yield from self._key())) is not None:
            if key in self.format.name_keys and not seen_name:
                seen_name = True
                self.know((yield from self._string()))
            elif key in self.format.argument_keys and not seen_arguments:
                seen_arguments = True
                arguments = yield from self._read_arguments(stream=seen_name)
            elif self.format.bare and not seen_name and key not in _OTHER_KEYS:
                raise Broken
            else:
                yield from self._scan_value(JsonScanner())
            if not (yield from self._more()):
                break
        if not seen_name:
            raise Broken
        if not self.calls.is_open:
            self.start()
            self._write(arguments)
        self.calls.end()

    def _read_keyed(self) -> Wait[None]:
        """``{"name": {...}}``; a second key is a second call, an empty object is none."""
        name = yield from self._key()
        if name is None:
            raise Broken
        while name is not None:
            self.know(name)
            arguments = yield from self._read_arguments(stream=True)
            if not self.calls.is_open:
                self.start()
                self._write(arguments)
            self.end_call()
            name = (yield from self._key()) if (yield from self._more()) else None

    def _key(self) -> Wait[str | None]:
        """The next key, its colon read too; None at the end of an empty object."""
        character = yield from self.source.skip_space()
        if character == "}":
            self.source.at += 1
            return None
        key = yield from self._string()
        if (yield from self.source.skip_space()) != ":":
            raise self._wrong()
        self.source.at += 1
        return key

    def _more(self) -> Wait[bool]:
        """Reads the comma or the brace behind a value; whether another key comes."""
        character = yield from self.source.skip_space()
        if character not in (",", "}"):
            raise self._wrong()
        self.source.at += 1
        return character == ","

    def _string(self) -> Wait[str]:
        character = yield from self.source.skip_space()
        if character != '"':
            raise self._wrong()
        scanner = JsonScanner()
        yield from self._scan_value(scanner)
        value: str = json.loads(scanner.take())
        return value

    def _wrong(self) -> Broken:
        return Truncated() if self.source.at == len(self.source.text) else Broken()

    # --- arguments ---------------------------------------------------------------------

    def _read_arguments(self, stream: bool) -> Wait[JsonScanner | str | None]:
        """Reads the value; what is to be written of it later, if it does not stream."""
        character = yield from self.source.skip_space()
        scanner = JsonScanner()
        if character == "{":
            if stream:
                self.start()
                self._written = scanner
            yield from self._scan_value(scanner)
            return None if stream else scanner
        if character not in ('"', "n"):
            raise self._wrong()
        yield from self._scan_value(scanner)
        text = scanner.take()
        return _unpacked(json.loads(text)) if character == '"' else None

    def stream_object(self) -> Wait[None]:
        """Reads the object that stands next as the open call's arguments."""
        self._written = JsonScanner()
        yield from self._scan_value(self._written)

    def _scan_value(self, scanner: JsonScanner) -> Wait[None]:
        """Reads one JSON value; passes it on if it is the open call's arguments."""
        source = self.source
        while True:
            source.at = scanner.scan(source.text, source.at)
            if scanner is self._written:
                self._pass(scanner.take())
            if scanner.done:
                return
            if scanner.failed:
                raise Broken
            if source.ended:
                raise Truncated
            yield

    def _write(self, arguments: JsonScanner | str | None) -> None:
        text = arguments.take() if isinstance(arguments, JsonScanner) else arguments
        self._pass(text or "{}")

    def _pass(self, fragment: str) -> None:
        if fragment:
            self._taken = True
            self.calls.arguments(fragment)


def with_brackets(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The class attributes of a format in which calls are objects, in an array or not."""
    return {
        "tokens": Markers([*attributes["tokens"].all, "{", "[", ",", "]"]),
        "call_openers": attributes["call_openers"] | {"{"},
        "closers": attributes["closers"] | {"]"},
    }


def _unpacked(text: str) -> str:
    """The object that a string holds."""
    scanner = JsonScanner()
    end = scanner.scan(text)
    inner = scanner.take().strip()
    if not scanner.done or inner[0] != "{" or text[end:].strip() or not _is_unicode(inner):
        raise Broken
    return inner


def _is_unicode(text: str) -> bool:
    """Whether there is no half of a surrogate pair, which nobody downstream could encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
