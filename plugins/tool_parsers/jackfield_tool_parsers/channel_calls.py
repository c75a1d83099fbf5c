"""Calls that are messages to a tool: ``<|channel|>commentary to=functions.f<|message|>{...}``."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from jackfield_tool_parsers.json_calls import JsonCalls
from jackfield_tool_parsers.markers import Markers
from jackfield_tool_parsers.source import Broken, Wait
from jackfield_tool_parsers.table import ToolFormat

_MAX_HEADER = 512
_RECIPIENT = re.compile(r"to=(?:functions\.)?+(?P<name>[^\s<]+)")
_HEADER_PARTS = ("<|start|>", "<|channel|>")
_MESSAGE = "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")


class ChannelCalls(JsonCalls):
    """Harmony. A message whose header names a recipient is a call; of other messages the
    headers are left out and the text is content."""

    header_ends: ClassVar[Markers] = Markers([_MESSAGE, *_ENDS])

    @classmethod
    def tables(cls, made: ToolFormat) -> dict[str, Any]:
        return super(JsonCalls, cls).tables(made) | {
            "triggers": Markers([*_HEADER_PARTS, *_ENDS, " to=functions."]),
            "tokens": Markers([*_HEADER_PARTS, *_ENDS, "to=functions."]),
            "call_openers": frozenset({*_HEADER_PARTS, *_ENDS, "to=functions."}),
            "closers": frozenset(_ENDS),
        }

    def read_call(self, opener: str) -> Wait[None]:
        if opener in _ENDS:
            return
        header, end = yield from self.source.all_before(self.header_ends, _MAX_HEADER)
        if end != _MESSAGE:
            raise Broken
        recipient = _RECIPIENT.search(opener + header)
        if recipient is None:
            return
        self.know(recipient["name"])
        character = yield from self.source.skip_space()
        if character != "{":
            raise self._wrong()
        self.start()
        yield from self.stream_object()
        self.calls.end()
