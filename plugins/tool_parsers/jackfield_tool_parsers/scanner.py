"""The way through the text of one choice: content, then calls, then content again.

A region of calls begins with a marker of the format and is a sequence of markers and calls. What
turns out not to be a call before its name is known is given back and read again as content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jackfield.contracts.text import Event, ParserContext
from jackfield_tool_parsers.arguments import Calls
from jackfield_tool_parsers.markers import Markers
from jackfield_tool_parsers.source import MAX_FRAME, Broken, Source, Truncated, Wait
from jackfield_tool_parsers.structure import structure
from jackfield_tool_parsers.table import ToolFormat

_MAX_HEADER = 256
_PAIRS = {"[": "]"}


class CallScanner:
    """A tool parser whose format is data; subclasses are shapes and read one call.

    A call that breaks off is closed, one that goes wrong after it began is closed where it went
    wrong and the rest is content; a marker with no call behind it is content. Whitespace between
    calls, and before the first one where nothing else precedes it, belongs to the markers.
    """

    api_version: ClassVar[int] = 1
    name: ClassVar[str]
    markers: ClassVar[frozenset[str]] = frozenset()
    format: ClassVar[ToolFormat]
    triggers: ClassVar[Markers]
    """What begins a region."""
    tokens: ClassVar[Markers]
    """What may stand in a region between calls."""
    call_openers: ClassVar[frozenset[str]]
    """The tokens behind which a call begins."""
    closers: ClassVar[frozenset[str]]
    """The tokens behind which a region may end."""
    header_openers: ClassVar[frozenset[str]]
    header_stops: ClassVar[Markers]
    """What ends a header, or shows that it is none."""
    calls_begin_with_name: ClassVar[bool] = False
    """Whether calls have no opener: they follow the region's."""

    def __init__(self, context: ParserContext) -> None:
        self.source = Source()
        self.calls = Calls()
        self.schemas = _schemas(context)
        self._blank = True  # nothing but whitespace since the beginning or the last call
        self._known_name: str | None = None  # of a call that has not started
        self._known_id = ""
        self._ids_seed = context.prompt_suffix
        self._retry = 1  # from where on what is given back may begin a region again
        self._run = self._scan()
        next(self._run)

    def feed(self, text: str) -> list[Event]:
        if not text:
            return []
        self.source.add(text)
        next(self._run)
        events, self.calls.events = self.calls.events, []
        return events

    def finish(self) -> list[Event]:
        self.source.ended = True
        for _ in self._run:
            raise AssertionError("nothing waits for text that will not come")
        events, self.calls.events = self.calls.events, []
        return events

    @classmethod
    def tables(cls, made: ToolFormat) -> dict[str, Any]:
        """The class attributes that a format makes of a shape."""
        sections = [*made.section_open, *made.also_open]
        openers = [*made.header_open, *sections, *made.call_open, *made.bare]
        closers = [*made.call_close, *made.section_close, *made.also_close]
        closers += [_PAIRS[bracket] for bracket in openers if bracket in _PAIRS]
        first = made.section_open[:1] or made.call_open[:1]
        triggers = [each for each in first if each not in made.bare]
        triggers += [*made.header_open, *made.also_open, *("\n" + bracket for bracket in made.bare)]
        if made.optional_section:
            triggers += made.call_open[:1]
        separators = [made.separator] if made.separator.strip() else []
        stripped = [each.strip() for each in (*openers, *closers, *separators)]
        return {
            "format": made,
            "name": made.name,
            "triggers": Markers(each if each[0] in "\n " else each.strip() for each in triggers),
            "tokens": Markers(stripped),
            "call_openers": frozenset(each.strip() for each in made.call_open[-1:]),
            "closers": frozenset(each.strip() for each in closers),
            "header_openers": frozenset(each.strip() for each in made.header_open),
            "header_stops": Markers([made.header_end, "<"] if made.header_end else ["<"]),
        }

    @classmethod
    def structure(
        cls, tools: Sequence[Mapping[str, object]], choice: str, *, parallel: bool = True
    ) -> Mapping[str, object] | None:
        """The grammar that forces the format; None where it cannot be bound to these tools."""
        return structure(cls.format, tools, choice, parallel)

    # --- what a shape says -------------------------------------------------------------

    def read_call(self, opener: str) -> Wait[None]:
        """Reads one call, whose opener was just read, and writes its events."""
        raise NotImplementedError

    def closing(self) -> str:
        """What makes the arguments of the open call, as far as written, complete."""
        raise NotImplementedError

    def lost(self) -> str:
        """What was read of the open call and not written."""
        return ""

    def may_call(self, name: str) -> bool:
        """Whether a name can be a call's. Where calls have no marker, only a tool's can."""
        if self.format.bare and self.schemas:
            return name in self.schemas
        return True

    def know(self, name: str, call_id: str = "") -> None:
        """The name of a call is known, and the id if the model gives one; it starts when its
        arguments do."""
        if not self.may_call(name):
            raise Broken
        self._known_name, self._known_id = name, call_id

    def start(self) -> None:
        """The call whose name is known starts."""
        assert self._known_name is not None
        self.calls.start(self._known_name, self._known_id or self._made_id())
        self._known_name = None
        self.source.keep()

    def _made_id(self) -> str:
        """An id for a call without one, where the format's must have some length: the same however
        the text is split, another for each call and each end of a prompt."""
        if not self.format.id_length:
            return ""
        seed = f"{self._ids_seed}{self.calls.num_calls}".encode(errors="replace")
        return hashlib.sha256(seed).hexdigest()[: self.format.id_length]

    def end_call(self) -> None:
        """The open call is complete; what follows can be given back."""
        self.calls.end()
        self.source.mark()
        self._retry = 1

    # --- the way through ---------------------------------------------------------------

    def _scan(self) -> Wait[None]:
        while (yield from self._content()):
            called = False
            while True:
                try:
                    yield from self._region(called)
                    break
                except Broken as error:
                    called = self._broken(isinstance(error, Truncated))
                if not called:
                    break

    def _content(self) -> Wait[bool]:
        """Passes content on up to where a region may begin; false at the end of all text."""
        source = self.source
        while True:
            start, end, which = self.triggers.search(source.text, source.at, source.ended)
            if self._blank and (found := self._blank_content(start, end, which)) is not None:
                if found:
                    return True
                if source.ended:
                    self._last()
                    return False
                yield
                continue
            if which is not None and which[0] == "\n":
                start = end - 1  # the newline before a bracket only tells it from others
            plain = source.text[source.at : start]
            self._blank = self._blank and not plain
            self.calls.content(plain)
            source.at = start
            if which is not None:
                self._begin_region(0, start)
                return True
            if source.ended:
                return False
            yield

    def _blank_content(self, start: int, end: int, which: str | None) -> bool | None:
        """Where nothing but whitespace is known since the beginning or the last call: true if a
        region begins here, false if there still is nothing else, None if there is."""
        source = self.source
        words = source.text[source.at : end].lstrip()
        space = end - source.at - len(words)
        if space > MAX_FRAME:
            return None
        if words and words[0] in self.format.bare:
            self._begin_region(space, source.at + space)
            return True
        if which is not None and source.at + space == start:
            self._begin_region(space, start)
            return True
        held = source.at + space == start
        return False if held else None

    def _begin_region(self, frame: int, at: int) -> None:
        """A trigger stands at ``at``, behind whitespace that belongs to it if a call follows."""
        self.source.mark()
        self._retry = frame + 1
        self.source.at = at

    def _last(self) -> None:
        """All ended in whitespace, or in what might have become a trigger."""
        text = self.source.text[self.source.at :]
        if not self.calls.num_calls or text.strip():
            self.calls.content(text)
        self.source.at = len(self.source.text)

    def _region(self, called: bool) -> Wait[None]:
        """Reads markers and calls until something else comes. ``called``: behind a call."""
        source = self.source
        may_end = called
        inside = not called  # whether calls can follow that have no opener of their own
        while True:
            token = yield from source.accept(self.tokens)
            if token is None:
                if inside and self.calls_begin_with_name and (yield from self._at_name()):
                    token = ""
                else:
                    self._end_region(called, may_end)
                    return
            if token in self.call_openers:
                yield from self.read_call(token)
                if self.calls.is_open:
                    self.calls.end()
                called = may_end = True
            elif token in self.header_openers:
                _, end = yield from source.all_before(self.header_stops, _MAX_HEADER)
                if end == "<":
                    raise Broken
                inside, may_end = True, False
            else:
                inside = token not in self.closers
                may_end = may_end and not inside
            if may_end:
                source.mark()
                self._retry = 1

    def _at_name(self) -> Wait[bool]:
        character = yield from self.source.skip_space()
        return character.isidentifier()

    def _end_region(self, called: bool, may_end: bool) -> None:
        """No marker is next."""
        cut = self.source.rest_begins(self.tokens)
        if not may_end and not (called and cut):
            raise Truncated if cut else Broken
        if cut:
            self.source.at = len(self.source.text)
        self.source.keep()
        self._blank = True

    def _broken(self, truncated: bool) -> bool:
        """A region went wrong. Whether a call ended here, behind which the region goes on."""
        if truncated and self._known_name is not None and not self.calls.is_open:
            self.start()
        self._known_name = None
        if self.calls.is_open:
            self.calls.arguments(self.closing())
            self.end_call()
            self._blank = True
            if truncated:
                self.source.at = len(self.source.text)
                return True
            lost = self.lost()
            if not lost.strip():
                return True
            self._blank = False
            self.source.keep()
            self.calls.content(lost)
            return False
        if truncated:
            self.source.at = len(self.source.text)
        # Markers in what was taken for a call are looked at again, from the last one on, so that
        # no character is read more than a few times.
        text = self.source.give_back()
        again = self.triggers.last(text, min(self._retry, len(text)))
        self._blank = False
        self.calls.content(text[:again])
        self.source.unread(text[again:])
        return False


def _schemas(context: ParserContext) -> dict[str, Mapping[str, object]]:
    """The parameters of each tool, by name."""
    found: dict[str, Mapping[str, object]] = {}
    for tool in context.tools:
        function = tool.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            found[function["name"]] = parameters if isinstance(parameters, Mapping) else {}
    return found
