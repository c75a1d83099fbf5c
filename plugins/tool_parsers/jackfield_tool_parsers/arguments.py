"""The events of calls, and their arguments as JSON that can be closed at any time."""

from __future__ import annotations

import json

from jackfield.contracts.text import (
    Content,
    Event,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)

# One encoder for all: json.dumps makes a new one each time.
encoded = json.JSONEncoder(ensure_ascii=False).encode
_CLOSING = {"{": "}", "[": "]", '"': '"'}


class Calls:
    """Writes the events of one choice, calls one after another, indices rising from 0."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.num_calls = 0
        self.is_open = False
        self._ids: set[str] = set()

    def content(self, text: str) -> None:
        """Text of the answer."""
        if text:
            self.events.append(Content(text))

    def start(self, name: str, call_id: str) -> None:
        """A call begins. An id that another call has is none."""
        assert not self.is_open
        own_id = "" if call_id in self._ids else call_id
        self._ids.add(own_id)
        self.events.append(ToolCallStart(self.num_calls, name, own_id))
        self.is_open = True

    def arguments(self, fragment: str) -> None:
        """More of the open call's arguments."""
        if fragment:
            self.events.append(ToolCallArguments(self.num_calls, fragment))

    def end(self) -> None:
        """The open call is complete."""
        self.events.append(ToolCallEnd(self.num_calls))
        self.num_calls += 1
        self.is_open = False


class JsonWriter:
    """Arguments put together from their parts. What ``take`` gives can be made complete with
    ``closing`` at any time: keys wait for the value that follows."""

    def __init__(self) -> None:
        self._safe: list[str] = []
        self._waiting = ""
        self._open: list[str] = []
        self._is_first = [True]

    def take(self) -> str:
        """What can be passed on and was not yet."""
        text = "".join(self._safe)
        self._safe.clear()
        return text

    def closing(self) -> str:
        """What makes the value complete as it is."""
        return "".join(_CLOSING[each] for each in reversed(self._open))

    def open(self, bracket: str) -> None:
        """A value begins that is an object, an array or (with a quote) a string."""
        self._begin()
        self._safe.append(bracket)
        self._open.append(bracket)
        self._is_first.append(True)

    def close(self) -> None:
        """The innermost open value ends."""
        self._is_first.pop()
        self._safe.append(_CLOSING[self._open.pop()])

    def key(self, key: str) -> None:
        """The key of the value to come."""
        self._waiting = f"{encoded(key)}: "

    def value(self, value: str) -> None:
        """A whole value, as JSON."""
        self._begin()
        self._safe.append(value)

    def text(self, text: str) -> None:
        """More of the open string."""
        if text:
            self._safe.append(encoded(text)[1:-1])

    def _begin(self) -> None:
        if not self._is_first[-1]:
            self._safe.append(", ")
        self._is_first[-1] = False
        self._safe.append(self._waiting)
        self._waiting = ""
