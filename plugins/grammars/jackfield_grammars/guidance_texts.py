"""Grammars as llguidance reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jackfield.contracts.grammar import GrammarSpec, Vocabulary
from jackfield_grammars.formats import FORMATS
from jackfield_grammars.guidance_tags import TagGrammar
from jackfield_grammars.json_regex import pieces
from jackfield_grammars.look_ahead import without_look_aheads
from jackfield_grammars.schema_dialect import settled
from jackfield_grammars.schema_facts import (
    DATA,
    MAPS,
    are_disjoint,
    assertions,
    is_local,
    resolve,
)
from jackfield_grammars.schema_lowering import lowered
from jackfield_grammars.texts import choices, is_ebnf, refuse

MAX_WHITESPACE = 32
_SPACE = rf"[\x20\x0A\x0D\x09]{{1,{MAX_WHITESPACE}}}"
_ESCAPES = 'nrbtf\\"'
"""Without ``u``: the library would let a listed property come again as another, by an escape."""

_NEEDS_CODES = re.compile(r"(?<!\\)(\\\\)*\\u00([01][0-9a-f]|7f)")
"""Characters that JSON can only write with such an escape, in a schema as ASCII."""

_FORMATS = frozenset({"duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
"""Those that the library does right."""
_COUNTS = frozenset(
    {"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"}
)


@dataclass(frozen=True, slots=True)
class Source:
    """A grammar in the library's own form. ``unique``: the schema whose ``uniqueItems`` the library
    does not keep, None if there are none. ``schema``: what the library makes JSON of, None where
    the output is none, or has white space of its own."""

    text: str
    unique: Any = None
    schema: Any = None


def source(spec: GrammarSpec, matcher_class: Any, vocabulary: Vocabulary) -> Source:
    """The grammar of a request as the library reads it."""
    if spec.kind == "structural_tag":
        lark = TagGrammar(vocabulary.special, _schema_in_tag).lark(json.loads(spec.text))
        return Source(str(matcher_class.grammar_from_lark(lark)))
    if spec.kind != "json_schema":
        return Source(_text_source(spec, matcher_class))
    given = settled(json.loads(spec.text))
    schema, leaves_unique = _simple(given)
    options: dict[str, object] = {"json_allowed_escapes": _ESCAPES}
    options |= {"whitespace_flexible": spec.whitespace != "", "whitespace_pattern": _SPACE}
    if spec.whitespace:
        options["whitespace_pattern"] = spec.whitespace
    if spec.whitespace == "":
        del options["whitespace_pattern"]
    text = str(matcher_class.grammar_from_json_schema(json.dumps(schema), overrides=options))
    return Source(text, given if leaves_unique else None, None if spec.whitespace else schema)


def _simple(given: Any) -> tuple[dict[str, Any], bool]:
    """A schema as the library takes it, and whether it leaves ``uniqueItems`` out."""
    lower, leaves_unique = _lowered(given)
    schema = without_neutral(lower)
    if _NEEDS_CODES.search(json.dumps(schema)):
        raise refuse("control characters in texts are beyond guidance")
    return {"not": {}} if schema is False else {} if schema is True else schema, leaves_unique


def _schema_in_tag(given: Any, max_space: int | None) -> dict[str, Any]:
    schema, leaves_unique = _simple(settled(given))
    if leaves_unique:
        raise refuse("uniqueItems in a structural tag is beyond guidance")
    most = MAX_WHITESPACE if max_space is None else max_space
    options: dict[str, object] = {"json_allowed_escapes": _ESCAPES, "whitespace_flexible": most > 0}
    if most > 0:
        options["whitespace_pattern"] = _SPACE.replace(str(MAX_WHITESPACE), str(most))
    return {**schema, "x-guidance": options}


def _text_source(spec: GrammarSpec, matcher_class: Any) -> str:
    if spec.kind == "regex":
        return str(matcher_class.grammar_from_regex(spec.text))
    if spec.kind == "choice":
        listed = " | ".join(json.dumps(text, ensure_ascii=False) for text in choices(spec))
        return str(matcher_class.grammar_from_lark(f"start: {listed}"))
    if spec.kind == "grammar":
        text = spec.text
        if is_ebnf(text):
            text = _lark_from_ebnf(text)
        return str(matcher_class.grammar_from_lark(text))
    raise refuse(f"the guidance backend has no {spec.kind}")


def _lowered(schema: Any) -> tuple[Any, bool]:
    try:
        return lowered(schema)
    except (TypeError, AttributeError, KeyError) as error:
        raise refuse("guidance: a keyword of the schema has a value of the wrong type") from error


def _lark_from_ebnf(text: str) -> str:
    from llguidance.gbnf_to_lark import any_to_lark  # with the extra only

    try:
        return str(any_to_lark(text))
    except Exception as error:  # the converter raises its own and others
        raise refuse(f"guidance: {str(error)[:300]}") from error


def without_neutral(schema: Any) -> Any:
    """The schema without keywords that change nothing and that the library refuses all the same:
    formats that nobody knows, ``uniqueItems: false``, ``then`` without ``if``, whole numbers
    written with a fraction; ``oneOf`` of schemas that exclude each other is ``anyOf``. Formats
    that it does not do right become patterns."""
    return _cleaned(schema, schema)


def _cleaned(node: Any, root: Any) -> Any:
    if isinstance(node, list):
        return [_cleaned(each, root) for each in node]
    if not isinstance(node, Mapping):
        return node
    _check_reference(node, root)
    effective = assertions(node)
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key in _NEUTRAL and key not in effective:
            continue
        if key == "format" and value not in _FORMATS:
            continue
        if key in _COUNTS and isinstance(value, float) and value.is_integer():
            value = int(value)
        if key == "oneOf" and "anyOf" not in node and are_disjoint(root, value):
            key = "anyOf"
        result[key] = _cleaned_value(key, value, root)
    result = _with_simple_patterns(result)
    name = node.get("format")
    if name in FORMATS and name not in _FORMATS:
        pattern = {"pattern": f"^({FORMATS[name]})$"}
        result |= {"allOf": [*result.get("allOf", []), pattern]} if "pattern" in node else pattern
    return result


def _with_simple_patterns(node: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node.get("pattern"), str):
        return node
    first, *others = map(_in_ecma, without_look_aheads(node["pattern"]))
    result = {**node, "pattern": first}
    if others:
        result["allOf"] = [*node.get("allOf", []), *({"pattern": each} for each in others)]
    return result


def _in_ecma(pattern: str) -> str:
    """A byte order mark is white space in ECMA 262, whose regexes JSON Schema has."""
    parts = ("[^\\s\\uFEFF]" if part == r"\S" else part for part in pieces(pattern))
    return "".join(_without_null(part) if part.startswith("[^") else part for part in parts)


def _without_null(part: str) -> str:
    """A negated class that excludes the null character too: in one that has all control characters
    the library allows every escape, also of a quote that it excludes."""
    rest = part[2:]
    return rf"[^\x00\{rest}" if rest[0] == "-" else rf"[^\x00{rest}"


def _check_reference(node: Mapping[str, Any], root: Any) -> None:
    target = resolve(root, node)
    if isinstance(target, Mapping) and target is not node and is_local(target.get("$ref")):
        raise refuse("a reference that leads to itself is beyond guidance")


_NEUTRAL = frozenset(
    {"uniqueItems", "if", "then", "else", "minContains", "maxContains", "contentEncoding"}
)


def _cleaned_value(key: str, value: Any, root: Any) -> Any:
    if key in DATA:
        return value
    if key in MAPS and isinstance(value, Mapping):
        written = _in_ecma if key == "patternProperties" else str
        return {written(name): _cleaned(each, root) for name, each in value.items()}
    return _cleaned(value, root)
