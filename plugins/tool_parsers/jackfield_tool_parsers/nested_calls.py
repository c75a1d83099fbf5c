"""Calls whose arguments are tags within tags: ``<city>Paris</city>``, each in a namespace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jackfield.contracts.text import ParserContext
from jackfield_tool_parsers.arguments import JsonWriter
from jackfield_tool_parsers.markers import Markers
from jackfield_tool_parsers.named_calls import MAX_NAME, NAME
from jackfield_tool_parsers.scanner import CallScanner
from jackfield_tool_parsers.source import Broken, Wait
from jackfield_tool_parsers.table import ToolFormat
from jackfield_tool_parsers.typed_text import STRING, Types, completed_json, json_types, to_json

_MAX_DEPTH = 64
_MAX_KEY = 256
_ITEM = "item"
_KEY_END = Markers([">"])


class NestedCalls(CallScanner):
    """A tag is a key, its content the value: a text, or more tags, which make an object, or an
    array where the schema says so or all of them are called ``item``."""

    name_ends: ClassVar[Markers]
    tags: ClassVar[Markers]
    """What begins a tag: first the closing ones."""
    closing_tag: ClassVar[str]
    call_end: ClassVar[str]

    @classmethod
    def tables(cls, made: ToolFormat) -> dict[str, Any]:
        opening = made.namespace + "<"
        return super().tables(made) | {
            "name_ends": Markers(each.strip() for each in made.name_end),
            "tags": Markers([opening, opening + "/"]),
            "closing_tag": opening + "/",
            "call_end": made.call_close[-1].strip().removeprefix(opening + "/").removesuffix(">"),
        }

    def __init__(self, context: ParserContext) -> None:
        self._writer = JsonWriter()
        self._pieces: list[str] | None = None
        self._types: Types | None = None
        super().__init__(context)

    def read_call(self, opener: str) -> Wait[None]:
        self._writer = JsonWriter()
        text, _ = yield from self.source.all_before(self.name_ends, MAX_NAME)
        if not NAME.fullmatch(text.strip()):
            raise Broken
        self.know(text.strip())
        schema = self.schemas.get(text.strip(), {})
        tag, is_end = yield from self._tag()
        if is_end and tag != self.call_end:
            raise Broken
        self.start()
        self._writer.open("{")
        while not is_end:
            yield from self._member(tag, _property(schema, tag), schema, 1)
            tag, is_end = yield from self._tag()
        self._writer.close()
        self._pass()
        self.calls.end()

    def closing(self) -> str:
        if self._pieces is not None:
            text, self._pieces = "".join(self._pieces), None
            if text.strip():
                self._writer.value(completed_json(text, self._types))
        return self._writer.take() + (self._writer.closing() or "{}")

    def _pass(self) -> None:
        self.calls.arguments(self._writer.take())

    def _tag(self) -> Wait[tuple[str, bool]]:
        """The name of the tag that stands next, and whether it ends something."""
        which = yield from self.source.expect(self.tags)
        return (yield from self._tag_name()), which == self.closing_tag

    def _tag_name(self) -> Wait[str]:
        text, _ = yield from self.source.all_before(_KEY_END, _MAX_KEY)
        return text.strip()

    def _member(self, tag: str, schema: object, root: object, depth: int) -> Wait[None]:
        """The content of a tag that was just opened, up to and over its end."""
        self._writer.key(tag)
        yield from self._value(tag, schema, root, depth)

    def _value(self, tag: str, schema: object, root: object, depth: int) -> Wait[None]:
        if depth > _MAX_DEPTH:
            raise Broken
        self._types = types = json_types(schema, root)
        streams = types == STRING
        self._pieces = []
        if streams:
            self._writer.open('"')
            self._pieces = None
        which = None
        while which is None:
            text, which = yield from self.source.before(self.tags)
            if streams:
                self._writer.text(text)
                self._pass()
            else:
                assert self._pieces is not None
                self._pieces.append(text)
        name = yield from self._tag_name()
        if streams:
            if which != self.closing_tag or name != tag:
                raise Broken
            self._writer.close()
            return
        text = "".join(self._pieces or ())
        self._pieces = None
        if which == self.closing_tag:
            if name != tag:
                raise Broken
            self._writer.value(to_json(text, types))
        elif text.strip():
            raise Broken
        else:
            yield from self._children(tag, name, schema, root, depth)

    def _children(
        self, tag: str, first: str, schema: object, root: object, depth: int
    ) -> Wait[None]:
        """Tags within a tag: the members of an object, or the items of an array."""
        types = json_types(schema, root)
        is_array = first == _ITEM if types is None else "array" in types and first == _ITEM
        self._writer.open("[" if is_array else "{")
        name, is_end = first, False
        while not is_end:
            if is_array:
                yield from self._value(name, _items(schema), root, depth + 1)
            else:
                yield from self._member(name, _property(schema, name), root, depth + 1)
            self._pass()
            name, is_end = yield from self._tag()
        if name != tag:
            raise Broken
        self._writer.close()


def _property(schema: object, key: str) -> object:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if isinstance(properties, Mapping) and key in properties:
        return properties[key]
    return schema.get("additionalProperties") if isinstance(schema, Mapping) else None


def _items(schema: object) -> object:
    return schema.get("items") if isinstance(schema, Mapping) else None
