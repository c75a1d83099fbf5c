"""The checkpoint's own word: the ``tool_calls`` field of its ``response_template``.

Version 1 as transformers 5 reads it (its guide "Chat response parsing"): a field has ``open`` and
``close`` literals or patterns, a parser of what is between, and a transform into OpenAI's shape.
The text of a call is read when it is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import ClassVar

from jackfield.contracts.text import CheckpointText, ParserContext
from jackfield.errors import ConfigError
from jackfield_tool_parsers.field_content import parse_content, transformed
from jackfield_tool_parsers.markers import Markers
from jackfield_tool_parsers.scanner import CallScanner
from jackfield_tool_parsers.source import Broken, Wait
from jackfield_tool_parsers.table import ToolFormat
from jackfield_tool_parsers.typed_text import json_types, to_json

_MAX_MARKER = 512
"""Characters that a match of a pattern may have."""
_GAP = re.compile(r"(?:\(\?:)?(?:\\s|\\n|\n| )[*+?]*\)?[*+?]?")
_LITERAL = re.compile(r"(?:\\[^\w\s]|[^\\\[\](){}.*+?^$|])+(?![*?{])")
_TABLE = ToolFormat(name="hf", shape="json", family="", sources=(), example="")


class HfToolParser(CallScanner):
    """Reads what the checkpoint's ``response_template`` says; made only where there is one."""

    name: ClassVar[str] = "hf"
    format = _TABLE
    closers: ClassVar[frozenset[str]] = frozenset()
    header_openers: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: ParserContext) -> None:
        self._field = calls_field(context.checkpoint.response_template)
        self._opens = _patterns(self._field, "open")
        self._closes = _patterns(self._field, "close")
        self._close_markers = Markers(self._closes) if self._closes else None
        if not self._opens:
            raise _cannot("its tool_calls have no open")
        # These are the class's own elsewhere; here they are the checkpoint's.
        self.triggers = self.tokens = Markers(self._opens)  # type: ignore[misc]
        self.call_openers = frozenset(self._opens)  # type: ignore[misc]
        super().__init__(context)

    @classmethod
    def markers_of(cls, checkpoint: CheckpointText) -> frozenset[str]:
        """What may be special tokens of the field's markers."""
        field = json.dumps(calls_field(checkpoint.response_template), ensure_ascii=False)
        return frozenset(re.findall(r"<[^<>\s]+>", field.replace("\\", "")))

    def read_call(self, opener: str) -> Wait[None]:
        found = yield from self._match(self._opens[opener])
        if found is None:
            raise Broken
        captures = {key: value for key, value in found.groupdict().items() if value is not None}
        text, end = yield from self._between()
        if end is not None:
            captures |= {key: value for key, value in end.groupdict().items() if value is not None}
        try:
            value = transformed(self._field, parse_content(self._field, text), captures)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Broken from None
        calls = value if isinstance(value, list) else [value]
        for name, arguments in [self._call(each) for each in calls]:
            self.know(name)
            self.start()
            self.calls.arguments(arguments)
            self.calls.end()

    def closing(self) -> str:
        return "{}"

    def _match(self, pattern: re.Pattern[str]) -> Wait[re.Match[str] | None]:
        """Reads a match that begins with the marker just read; None, and nothing, if there is
        none."""
        source = self.source
        source.unread_marker()
        while True:
            found = pattern.match(source.text, source.at)
            rest = len(source.text) - source.at
            settled = source.ended or rest > _MAX_MARKER
            if found is not None and (settled or found.end() < len(source.text)):
                source.at = found.end()
                return found
            if settled:
                return None
            yield

    def _between(self) -> Wait[tuple[str, re.Match[str] | None]]:
        """Reads the text up to what closes the field, and that; without it, all there is."""
        source, pieces = self.source, []
        if self._close_markers is None:
            while not source.ended:
                pieces.append(source.text[source.at :])
                source.at = len(source.text)
                yield
            return "".join(pieces), None
        while True:
            text, which = yield from source.before(self._close_markers)
            pieces.append(text)
            if which is None:
                continue
            found = yield from self._match(self._closes[which])
            if found is not None:
                return "".join(pieces), found
            pieces.append(source.text[source.at])  # not what it looked like
            source.at += 1

    def _call(self, value: object) -> tuple[str, str]:
        """The name and the arguments, as JSON, of a call in OpenAI's shape."""
        function = value.get("function", value) if isinstance(value, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str) or not name.strip():
            raise Broken
        arguments = function.get("arguments", function.get("parameters")) or {}
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                raise Broken from None
        if not isinstance(arguments, Mapping):
            raise Broken
        schema = self.schemas.get(name.strip(), {})
        members = [
            f"{_json(key)}: {_typed(each, _said(schema, key), schema)}"
            for key, each in arguments.items()
        ]
        return name.strip(), "{" + ", ".join(members) + "}"


class ResponseTemplateToolParser(HfToolParser):
    """The name that SGLang gives it."""

    name: ClassVar[str] = "response_template"


def calls_field(template: Mapping[str, object] | None) -> Mapping[str, object]:
    """The ``tool_calls`` field; ``ConfigError`` if there is none."""
    fields = None if template is None else template.get("fields")
    field = fields.get("tool_calls") if isinstance(fields, Mapping) else None
    if not isinstance(field, Mapping):
        raise _cannot("there is none with tool_calls")
    return field


def has_calls(template: Mapping[str, object] | None) -> bool:
    """Whether a response template says how calls are written."""
    fields = None if template is None else template.get("fields")
    return isinstance(fields, Mapping) and isinstance(fields.get("tool_calls"), Mapping)


def _cannot(why: str) -> ConfigError:
    return ConfigError(
        "--tool-call-parser hf reads the response_template in the checkpoint's "
        f"tokenizer_config.json, and {why}; choose a parser by its name"
    )


def _patterns(field: Mapping[str, object], side: str) -> dict[str, re.Pattern[str]]:
    """What opens or closes a field: for each, the literal it begins with and the whole of it."""
    pattern = field.get(f"{side}_pattern")
    if isinstance(pattern, str):
        begin = 0
        while gap := _GAP.match(pattern, begin):
            begin = gap.end()
        literal = _LITERAL.match(pattern, begin)
        if literal is None or len(text := re.sub(r"\\(.)", r"\1", literal[0])) < 2:
            raise _cannot(f"the pattern {pattern!r:.80} does not begin with a text")
        try:
            return {text: re.compile(pattern[begin:], re.DOTALL)}
        except re.error as error:
            raise _cannot(f"the pattern {pattern!r:.80} is wrong: {error}") from None
    value = field.get(side, ())
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
        raise _cannot(f"its {side} is wrong: {value!r:.80}")
    return {text.strip(): re.compile(re.escape(text.strip())) for text in texts if text.strip()}


def _said(schema: Mapping[str, object], key: str) -> object:
    properties = schema.get("properties")
    return properties.get(key) if isinstance(properties, Mapping) else None


def _typed(value: object, said: object, schema: object) -> str:
    """A value as JSON; a text is what the tool's schema makes of it."""
    types = json_types(said, schema)
    if isinstance(value, str) and types is not None:
        return to_json(value, types)
    return _json(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
