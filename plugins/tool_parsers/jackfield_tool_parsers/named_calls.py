"""Calls that are a name between markers and a JSON object: ``[TOOL_CALLS]name[ARGS]{...}``."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from jackfield_tool_parsers.json_calls import JsonCalls, with_brackets
from jackfield_tool_parsers.markers import Markers
from jackfield_tool_parsers.source import SPACE, Broken, Wait
from jackfield_tool_parsers.table import ToolFormat

MAX_NAME = 256
NAME = re.compile(r"[^\s\"'{}()\[\]<>=,;]{1,256}")


class NamedCalls(JsonCalls):
    """The name is what stands between the opener and its end, without the format's prefix and
    the call's number. Where a name's end was forgotten, the arguments' brace ends it."""

    name_ends: ClassVar[Markers]

    @classmethod
    def tables(cls, made: ToolFormat) -> dict[str, Any]:
        attributes = super(JsonCalls, cls).tables(made)
        ends = [*(each.strip() for each in made.name_end), *attributes["closers"], "{"]
        attributes["name_ends"] = Markers(ends)
        return attributes | with_brackets(attributes) if made.json_too else attributes

    def read_call(self, opener: str) -> Wait[None]:
        if (yield from self.read_json_call(opener)):
            return
        source = self.source
        text, end = yield from source.all_before(self.name_ends, MAX_NAME)
        name = cleaned_name(text, self.format)
        self.know(name, own_id(text.strip(), name, self.format))
        if end == "{":
            source.at -= 1
        closer = source.marker_text() if end in self.closers else ""
        space = yield from source.match(SPACE)
        if (yield from source.peek()) != "{":
            if closer:
                source.unread(closer + space)
            elif not (yield from self._at_closer()):
                raise self._wrong()
            self.start()
            self._pass("{}")
            return
        self.start()
        yield from self.stream_object()
        self.calls.end()

    def _at_closer(self) -> Wait[bool]:
        """Whether the call is closed where its arguments should be."""
        token = yield from self.source.accept(self.tokens)
        if token is not None:
            self.source.unread_marker()
        return token in self.closers

    def read_json_call(self, opener: str) -> Wait[bool]:
        """Reads the object that stands for a call in some formats, or the first of an array of
        them; the region's tokens do the rest. False if none stands here."""
        if not self.format.json_too:
            return False
        if opener != "{":
            bracket = yield from self.source.skip_space()
            if not bracket or bracket not in "[{":
                return False
            self.source.at += 1
            if bracket == "[":
                if (yield from self.source.skip_space()) != "{":
                    raise self._wrong()
                self.source.at += 1
        yield from super().read_call("{")
        return True


def own_id(text: str, name: str, made: ToolFormat) -> str:
    """The id in what stands where the name should; empty if the template would not take it."""
    if made.name_is_id:
        return text if text != name else ""
    rest = text.partition(made.name_rest)[2].strip() if made.name_rest else ""
    is_right = not made.id_length or re.fullmatch(f"[A-Za-z0-9]{{{made.id_length}}}", rest)
    return rest if is_right else ""


def cleaned_name(text: str, made: ToolFormat) -> str:
    """The name in what stands where it should; ``Broken`` if none does."""
    name = text.strip()
    if made.name_rest:
        name = name.partition(made.name_rest)[0].strip()
    name = name.removeprefix(made.name_prefix)
    if made.name_index:
        head, found, number = name.rpartition(made.name_index)
        name = head if found and number.isdecimal() else name
    if not NAME.fullmatch(name):
        raise Broken
    return name
