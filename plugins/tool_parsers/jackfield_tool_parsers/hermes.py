"""Tool calls as Hermes and Qwen write them: a JSON object in ``<tool_call>`` tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from jackfield.contracts.text import (
    Content,
    Event,
    ParserContext,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from jackfield_tool_parsers.call_object import CallObject

START, END = "<tool_call>", "</tool_call>"
_MAX_FRAME = 64


class HermesToolParser:
    """One pass; the arguments stream character for character as the model writes them.

    A call that breaks off is closed, one that goes wrong after it began is closed where it
    went wrong and the rest is content; a tag with no call behind it is content. Whitespace
    between calls, and before the first one where nothing else precedes it, belongs to the tags.
    """

    name: ClassVar[str] = "hermes"
    api_version: ClassVar[int] = 1

    def __init__(self, context: ParserContext) -> None:
        self._step: Callable[[str, int, list[Event]], int] = self._text
        self._held = ""
        self._index = 0
        self._blank = True  # nothing but whitespace since the beginning or the last call
        self._frame = ""  # whitespace that was taken for framing, until the call is one
        self._call = CallObject()
        self._raw: list[str] = []
        self._begin = -1  # where the call's text begins, if in the text at hand
        self._started = False
        self._taken = False
        self._reread = ""

    def feed(self, text: str) -> list[Event]:
        events: list[Event] = []
        if self._held:
            text, self._held = self._held + text, ""
        self._begin = -1
        at = 0
        while at < len(text):
            at = self._step(text, at, events)
            if self._reread:
                text, at, self._reread = self._reread + text[at:], 0, ""
        return events

    def finish(self) -> list[Event]:
        events: list[Event] = []
        held, self._held = self._held, ""
        if self._step == self._in_call:
            if self._call.name is None:
                _content(self._frame + START + "".join(self._raw), events)
            else:
                self._start_call(events)
                self._end_call(events)
        elif self._step == self._text and not (held.isspace() and self._index):
            _content(held, events)
        self._step = self._text
        return events

    # --- steps: each takes text from ``at`` on, at least one character or a change of step -----

    def _text(self, text: str, at: int, events: list[Event]) -> int:
        start = text.find(START, at)
        end = start if start >= 0 else _partial_start(text, at)
        plain = text[at:end]
        if self._blank and len(plain) <= _MAX_FRAME and not plain.strip():
            if start < 0:
                self._held = text[at:]
                return len(text)
            self._frame = plain
        else:
            self._blank, self._frame = False, ""
            _content(plain, events)
            if start < 0:
                self._held = text[end:]
                return len(text)
        self._call, self._started, self._taken = CallObject(), False, False
        self._raw.clear()
        self._begin = start + len(START)
        self._step = self._in_call
        return self._begin

    def _in_call(self, text: str, at: int, events: list[Event]) -> int:
        call = self._call
        end = call.scan(text, at)
        if not self._started:
            self._raw.append(text[at:end])
            if call.started and not call.failed:
                self._start_call(events)
        if self._started:
            self._arguments(call.take(), events)
        if call.ended:
            self._end_call(events)
        elif call.failed:
            return self._failed(text, end, events)
        return end

    def _start_call(self, events: list[Event]) -> None:
        if not self._started:
            assert self._call.name is not None
            events.append(ToolCallStart(self._index, self._call.name))
            self._started = True
            self._raw.clear()

    def _arguments(self, fragment: str, events: list[Event]) -> None:
        if fragment:
            self._taken = True
            events.append(ToolCallArguments(self._index, fragment))

    def _end_call(self, events: list[Event]) -> None:
        self._arguments(self._call.closing(self._taken), events)
        events.append(ToolCallEnd(self._index))
        self._index += 1
        self._blank = True
        self._step = self._behind_call

    def _failed(self, text: str, end: int, events: list[Event]) -> int:
        """A call went wrong at ``end``."""
        if self._started:
            self._end_call(events)
            lost = self._call.held()
            if lost.strip():
                self._blank = False
                _content(lost, events)
            return end
        # Tags in what was taken for the call are looked at again, from the last one on, so that
        # no character is read more than twice.
        self._step = self._text
        self._blank = False
        if self._begin >= 0:
            again = text.rfind(START, self._begin, end)
            again = end if again < 0 else again
            _content(self._frame + START + text[self._begin : again], events)
            return again
        raw = "".join(self._raw)
        again = raw.rfind(START)
        again = len(raw) if again < 0 else again
        _content(self._frame + START + raw[:again], events)
        self._reread = raw[again:]
        return end

    def _behind_call(self, text: str, at: int, events: list[Event]) -> int:
        """Takes the end tag, which some models forget."""
        tag = at
        while tag < len(text) and text[tag].isspace() and tag - at < _MAX_FRAME:
            tag += 1
        if text.startswith(END, tag):
            self._step = self._text
            return tag + len(END)
        if END.startswith(text[tag:]):
            self._held = text[at:]
            return len(text)
        self._step = self._text
        return at


def _content(text: str, events: list[Event]) -> None:
    if text:
        events.append(Content(text))


def _partial_start(text: str, at: int) -> int:
    """Where the longest suffix begins that may become a start tag; the end of the text if none."""
    tag = text.rfind("<", max(at, len(text) - len(START) + 1))
    return tag if tag >= 0 and START.startswith(text[tag:]) else len(text)
