"""What is between the markers of a ``response_template``'s field: its parsers and its transform."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from jackfield_tool_parsers.arguments import JsonWriter
from jackfield_tool_parsers.literal_calls import read_python_calls
from jackfield_tool_parsers.literals import delimited, read_value
from jackfield_tool_parsers.source import Broken, Source

_PLACEHOLDER = re.compile(r"\{(\w+(?:\.\w+)*)\}")
Options = Mapping[str, object]


def parse_content(field: Options, text: str) -> object:
    """The value that the field's content parser makes of the text; ``ValueError`` if it is none
    of its kind."""
    return _parse(str(field.get("content", "text")), text, _mapping(field.get("content_args")))


def transformed(field: Options, content: object, captures: Mapping[str, str]) -> object:
    """The content in the shape that the field's transform says; ``KeyError`` for what it names
    and is not there."""
    transform = field.get("transform")
    if transform is None:
        return content
    if field.get("transform_each") is True and isinstance(content, list):
        return [_fill(transform, {**captures, **_mapping(each)}) for each in content]
    return _fill(transform, {**captures, "content": content})


def _fill(transform: object, scope: Mapping[str, object]) -> object:
    if isinstance(transform, Mapping):
        return {key: _fill(value, scope) for key, value in transform.items()}
    if isinstance(transform, list):
        return [_fill(value, scope) for value in transform]
    place = _PLACEHOLDER.fullmatch(transform) if isinstance(transform, str) else None
    if place is None:
        return transform
    value: object = scope
    for part in place[1].split("."):
        if not isinstance(value, Mapping):
            raise KeyError(part)
        value = value[part]
    return value


def _parse(kind: str, text: str, options: Options) -> object:
    if kind == "json":
        return _json(text, options)
    if kind == "xml-inline":
        return _tags(text, options)
    if kind == "kv-lines":
        return _lines(text, options)
    if kind == "python-call-list":
        return read_python_calls(text)
    stripped = text.strip() if options.get("strip", True) else text
    if kind == "int":
        return int(stripped)
    if kind == "float":
        return float(stripped)
    if kind == "bool":
        return stripped.lower() in ("true", "1")
    if kind == "text":
        return stripped
    raise ValueError(f"there is no content parser {kind!r}")


def _json(text: str, options: Options) -> object:
    """JSON; with bare keys or delimiters of its own, Gemma's notation."""
    delimiters = options.get("string_delims") or []
    if not delimiters and not options.get("unquoted_keys"):
        try:
            return json.loads(text)
        except ValueError:
            if options.get("allow_non_json"):
                return text.strip()
            raise
    marks = [str(pair[0]) for pair in delimiters if isinstance(pair, list)]  # type: ignore[attr-defined]
    source, writer = Source(), JsonWriter()
    source.text, source.ended = text, True
    try:
        for _ in read_value(source, writer, delimited(*marks, '"')):
            raise AssertionError("all of the text is there")
    except Broken:
        raise ValueError("the text is not in the field's notation") from None
    return json.loads(writer.take())


def _tags(text: str, options: Options) -> dict[str, object]:
    found: dict[str, object] = {}
    lists: set[str] = set()
    for match in re.finditer(str(options["tag_pattern"]), text, re.DOTALL):
        key, value = match["key"], _inner(match["value"], options)
        if key in found and options.get("merge_duplicates"):
            earlier = found[key]
            if key not in lists:
                lists.add(key)
                found[key] = earlier = [earlier]
            assert isinstance(earlier, list)
            earlier.append(value)
        else:
            found[key] = value
    return found


def _lines(text: str, options: Options) -> dict[str, object]:
    found: dict[str, object] = {}
    separator = str(options.get("kv_sep", ":"))
    for line in text.split(str(options.get("line_sep", "\n"))):
        key, between, value = line.partition(separator)
        if between:
            found[key.strip()] = _inner(value.strip(), options)
    return found


def _inner(text: str, options: Options) -> object:
    """A value within, by the parser for it if there is one."""
    parser = _mapping(options.get("value_parser"))
    if not parser:
        return text
    return _parse(str(parser.get("name", "text")), text, _mapping(parser.get("args")))


def _mapping(value: object) -> Options:
    return value if isinstance(value, Mapping) else {}
