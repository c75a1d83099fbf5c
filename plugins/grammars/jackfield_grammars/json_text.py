"""A JSON text as it is written: where it is, and which items of arrays must not come again."""

from __future__ import annotations

import json
from typing import Any, Literal

from jackfield_grammars.json_path import Nodes, SchemaPaths

Mode = Literal["value", "string", "scalar", "after", "key", "name", "colon"]
SPACE = b" \t\r\n"
ENDS = SPACE + b",]}"
"""What ends a number, true, false or null."""


class Level:
    """An array or an object that is open. ``start`` is where its item under way begins, or its
    property, in the text; -1 between them."""

    __slots__ = (
        "has_integers",
        "is_array",
        "is_unique",
        "known",
        "known_members",
        "members",
        "name",
        "nodes",
        "start",
        "texts",
    )

    def __init__(
        self,
        is_array: bool,
        nodes: Nodes,
        texts: frozenset[bytes] | None = None,
        has_integers: bool = False,
    ) -> None:
        self.is_array = is_array
        self.has_integers = has_integers
        """Of an array: whether its items are integers."""
        self.nodes = nodes
        self.is_unique = is_array and any(node.get("uniqueItems") is True for node in nodes)
        self.start = -1
        self.name = ""
        self.known: dict[str, bytes] = {}
        """Of an array that is unique: the text of each item by its value."""
        self.known_members: list[set[tuple[str, str]]] = []
        """The properties of those that are objects."""
        self.texts = texts if self.is_unique else None
        """Of an array that is unique: the texts that its items may have, where they are few."""
        self.members: set[tuple[str, str]] = set()
        """Of an object: its properties so far, by name and value."""


class JsonText:
    """Follows a text that a grammar allows, so that it is JSON."""

    def __init__(self, paths: SchemaPaths) -> None:
        self._paths = paths
        self.text = bytearray()
        self.levels: list[Level] = []
        self.mode: Mode = "value"
        self.num_unique = 0
        """How many of ``levels`` are unique."""
        self.is_escape = False
        self._root_start = -1

    def feed(self, data: bytes) -> bool:
        """Goes on; False where an item came again, and then the text is of no use any more."""
        return all(map(self._step, data))

    @property
    def item(self) -> bytes:
        """The text of the innermost value so far."""
        start = self.levels[-1].start if self.levels else self._root_start
        return bytes(self.text[start:]) if start >= 0 else b""

    def _step(self, byte: int) -> bool:
        mode = self.mode
        if mode in ("string", "name"):
            self.text.append(byte)
            if self.is_escape:
                self.is_escape = False
            elif byte == 0x5C:
                self.is_escape = True
            elif byte == 0x22:
                return self._end_string()
            return True
        is_fresh = True
        if mode == "scalar" and byte in ENDS:
            is_fresh = self._end_value()
        self.text.append(byte)
        if byte not in SPACE and self.mode != "scalar":
            is_fresh = self._mark(byte) and is_fresh
        return is_fresh

    def _mark(self, byte: int) -> bool:
        """A byte between strings and scalars."""
        if byte in b"]}":
            self._close()
            return self._end_value()
        if byte == 0x2C:
            self.mode = "value" if self.levels[-1].is_array else "key"
        elif byte == 0x3A:
            self.mode = "value"
        elif self.mode == "key":
            self.mode = "name"
            self.levels[-1].start = len(self.text) - 1
        else:
            self._open(byte)
        return True

    def _open(self, byte: int) -> None:
        """The first byte of a value."""
        nodes = self._nodes()
        if not self.levels:
            self._root_start = len(self.text) - 1
        elif self.levels[-1].is_array:
            self.levels[-1].start = len(self.text) - 1
        if byte == 0x22:
            self.mode = "string"
        elif byte in b"[{":
            is_array = byte == 0x5B
            self.levels.append(self._array(nodes) if is_array else Level(False, nodes))
            self.num_unique += self.levels[-1].is_unique
            self.mode = "value" if is_array else "key"
        else:
            self.mode = "scalar"

    def _array(self, nodes: Nodes) -> Level:
        items = self._paths.items(nodes)
        has_integers = len(items) == 1 and items[0].get("type") == "integer"
        return Level(True, nodes, self._paths.texts(items), has_integers)

    def _nodes(self) -> Nodes:
        if not self.levels:
            return self._paths.root
        level = self.levels[-1]
        if level.is_array:
            return self._paths.items(level.nodes)
        return self._paths.property(level.nodes, level.name)

    def _close(self) -> None:
        self.num_unique -= self.levels.pop().is_unique

    def _end_string(self) -> bool:
        if self.mode == "string":
            return self._end_value()
        level = self.levels[-1]
        level.name = json.loads(self.text[level.start :])
        self.mode = "colon"
        return True

    def _end_value(self) -> bool:
        """The innermost value is complete, the last byte of the text its last."""
        self.mode = "after"
        if not self.levels or not self.num_unique:
            return True
        level = self.levels[-1]
        raw = bytes(self.text[level.start :])
        if not level.is_array:
            level.members |= _members(b"{%b}" % raw)
        elif level.is_unique:
            value = value_of(raw)
            if value in level.known:
                return False
            level.known[value] = raw
            if raw.startswith(b"{"):
                level.known_members.append(_members(raw))
        return True


def value_of(text: bytes) -> str:
    """The value of a JSON text: equal for equal values."""
    return canonical(json.loads(text, **_NUMBERS))


def canonical(value: Any) -> str:
    """A value as a text: equal for equal values."""
    return json.dumps(value, sort_keys=True)


def _members(text: bytes) -> set[tuple[str, str]]:
    """The properties of an object, by name and value."""
    found = json.loads(text, **_NUMBERS)
    return {(name, canonical(value)) for name, value in found.items()}


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() else value


_NUMBERS: dict[str, Any] = {"parse_float": _number}
