"""What a text stands for where a format carries only text: the tool's schema decides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jackfield_tool_parsers.arguments import JsonWriter, encoded
from jackfield_tool_parsers.json_scanner import JsonScanner
from jackfield_tool_parsers.literals import PYTHON, read_value
from jackfield_tool_parsers.source import Broken, Source

Types = frozenset[str]
STRING: Types = frozenset({"string"})
_MAX_DEPTH = 16
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]+)?(?P<power>[eE][+-]?[0-9]+)?")
_EMPTY = {"object": "{}", "array": "[]", "null": "null"}
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}
# What people write for JSON Schema's own names.
_SYNONYMS = {
    "str": "string",
    "text": "string",
    "enum": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "list": "array",
    "tuple": "array",
}


def json_types(schema: object, root: object, depth: int = 0) -> Types | None:
    """The JSON types that values of a schema may have; None if it does not say. ``root`` is the
    schema that references are looked up in."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return None
    said = [_own_types(schema)]
    if isinstance(reference := schema.get("$ref"), str):
        said.append(json_types(_resolve(reference, root), root, depth + 1))
    for key in ("anyOf", "oneOf"):
        if isinstance(parts := schema.get(key), Sequence) and parts:
            each = [json_types(part, root, depth + 1) for part in parts]
            said.append(None if None in each else frozenset().union(*(e for e in each if e)))
    if isinstance(parts := schema.get("allOf"), Sequence):
        said.extend(json_types(part, root, depth + 1) for part in parts)
    known = [types for types in said if types is not None]
    if not known:
        return None
    types = frozenset.intersection(*known)
    return types | {"null"} if schema.get("nullable") is True else types


def only_texts(schema: object, root: object, depth: int = 0) -> frozenset[str]:
    """The texts that a schema lists, where its values are no other texts; else empty."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return frozenset()
    if isinstance(reference := schema.get("$ref"), str):
        return only_texts(_resolve(reference, root), root, depth + 1)
    if isinstance(parts := schema.get("anyOf", schema.get("oneOf")), Sequence):
        texts = [only_texts(part, root, depth + 1) for part in parts]
        types = [json_types(part, root) or STRING for part in parts]
        is_any = any("string" in of and not its for of, its in zip(types, texts, strict=True))
        return frozenset() if is_any else frozenset().union(*texts)
    listed = [schema["const"]] if "const" in schema else schema.get("enum", ())
    found = listed if isinstance(listed, Sequence) else ()
    return frozenset(each for each in found if isinstance(each, str))


def _own_types(schema: Mapping[str, object]) -> Types | None:
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset({_SYNONYMS.get(kind, kind)})
    if isinstance(kind, Sequence):
        return frozenset(_SYNONYMS.get(str(each), str(each)) for each in kind)
    if "const" in schema:
        return frozenset({_type_of(schema["const"])})
    if isinstance(values := schema.get("enum"), Sequence) and values:
        return frozenset(_type_of(each) for each in values)
    if "properties" in schema:
        return frozenset({"object"})
    return frozenset({"array"}) if "items" in schema else None


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    for kind, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (Mapping, "object"),
    ):
        if isinstance(value, kind):
            return name
    return "array"


def _resolve(reference: str, root: object) -> object:
    """What ``#/$defs/name`` points to; None if nothing."""
    if not reference.startswith("#"):
        return None
    found = root
    for part in reference[1:].split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def to_json(text: str, types: Types | None) -> str:
    """The JSON value that ``text`` stands for where one of ``types`` is meant; a string if it is
    none of the others, so that nothing is lost."""
    bare = text.strip()
    if not bare and types is not None and "string" not in types:
        return next((_EMPTY[each] for each in sorted(types) if each in _EMPTY), '""')
    value = _word_or_number(bare) or _container(bare)
    if value is not None and (types is None or _is_one_of(value, types)):
        return value
    if types is not None and "string" not in types and value is None and bare[:1] == '"':
        value = _whole(bare)  # a string in quotes where none was asked for
        if value is not None:
            return value
    if types is not None and not types & {"string"} and value is not None:
        return value
    return encoded(text)


def completed_json(text: str, types: Types | None) -> str:
    """As ``to_json``, for a text that broke off."""
    scanner = JsonScanner()
    scanner.scan(text)
    if text.lstrip()[:1] in ("{", "[") and not scanner.failed and not scanner.done:
        return to_json(scanner.take() + scanner.closing(), types)
    return to_json(text, types)


def _is_one_of(value: str, types: Types) -> bool:
    first = value[0]
    if first in "{[":
        return ("object" if first == "{" else "array") in types
    if first == "n":
        return "null" in types
    if first in "tf":
        return "boolean" in types
    match = _NUMBER.fullmatch(value)
    assert match is not None
    whole = match["power"] is None and (match["fraction"] or ".0").strip(".0") == ""
    return "number" in types or ("integer" in types and whole)


def _word_or_number(text: str) -> str | None:
    if _NUMBER.fullmatch(text):
        return text
    return _WORDS.get(text.lower()) if len(text) < 6 else None


def _container(text: str) -> str | None:
    """An object or an array, written as JSON or as Python has it."""
    if text[:1] not in ("{", "["):
        return None
    if (value := _whole(text)) is not None:
        return value
    source, writer = Source(), JsonWriter()
    source.text, source.ended = text, True
    try:
        for _ in read_value(source, writer, PYTHON):
            raise AssertionError("all of the text is there")
    except Broken:
        return None
    return None if source.text[source.at :].strip() else writer.take()


def _whole(text: str) -> str | None:
    scanner = JsonScanner()
    end = scanner.scan(text)
    return scanner.take() if scanner.done and not text[end:].strip() else None
