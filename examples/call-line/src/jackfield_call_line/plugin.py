"""Tool calls that stand on a line of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import ClassVar

from jackfield.contracts.text import (
    Content,
    Event,
    ParserContext,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)


class CallLineParser:
    """Finds calls that stand on a line of their own: ``CALL name {"argument": 1}``.

    The mark that begins such a line is an option.

    A line that cannot become a call is passed on as it comes; one that can is held back to its end.
    """

    name: ClassVar[str] = "call_line"
    api_version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class Options:
        """--plugin-option call_line.mark=TEXT"""

        mark: str = field(default="CALL ", metadata={"help": "what a line with a call begins with"})

    def __init__(self, context: ParserContext, *, options: Options = Options()) -> None:
        self._mark = options.mark
        self._line: list[str] = []
        self._start = ""
        self._num_calls = 0

    def feed(self, text: str) -> list[Event]:
        """The events that ``text`` completes."""
        first, *more = text.split("\n")
        events = self._add(first)
        for piece in more:
            events += self._add("\n") + self._end_line() + self._add(piece)
        return events

    def finish(self) -> list[Event]:
        """The rest."""
        return self._end_line()

    def _add(self, piece: str) -> list[Event]:
        """More of the line; its text, once it cannot be a call any more."""
        if len(self._start) < len(self._mark):
            self._start = (self._start + piece)[: len(self._mark)]
        self._line.append(piece)
        return [] if self._mark.startswith(self._start) else self._pass_on()

    def _pass_on(self) -> list[Event]:
        text = "".join(self._line)
        self._line = []
        return [Content(text)] if text else []

    def _end_line(self) -> list[Event]:
        line = "".join(self._line)
        events = self._call(line) or self._pass_on()
        self._line, self._start = [], ""
        return events

    def _call(self, line: str) -> list[Event]:
        """The call that the line is, if it is one."""
        if not line.startswith(self._mark):
            return []
        name, _, arguments = line.removeprefix(self._mark).partition(" ")
        try:
            is_call = bool(name) and isinstance(json.loads(arguments), dict)
        except (ValueError, RecursionError):
            return []
        if not is_call:
            return []
        index, self._num_calls = self._num_calls, self._num_calls + 1
        arguments = arguments.strip()
        return [ToolCallStart(index, name), ToolCallArguments(index, arguments), ToolCallEnd(index)]
