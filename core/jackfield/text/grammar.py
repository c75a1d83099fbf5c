"""Structured output as a request asks for it, to the grammar that the engine gets; its bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jackfield.contracts.grammar import GrammarSpec, StructuredOutputs
from jackfield.errors import RequestError
from jackfield.text.json_schema import check_bounds, closed

MAX_CHARACTERS = 65536
MAX_CHOICES = 5000
_PARAM = "structured_outputs"


def grammar_spec(wanted: StructuredOutputs) -> GrammarSpec | None:
    """Checks what needs no backend; ``RequestError`` says what is wrong. None where the output
    goes free, since it is only held ``best_effort``."""
    try:
        spec = _spec(wanted)
        if not spec.text:
            raise _refusal(f"{spec.kind} is empty")
        _check_length(spec.text, spec.kind)
    except RequestError as error:
        if wanted.best_effort:
            return None
        raise RequestError(*in_terms_of(wanted, error.message)) from None
    return spec


def in_terms_of(wanted: StructuredOutputs, message: str) -> tuple[str, str]:
    """An error about ``structured_outputs``, and the field, as the request has it."""
    return message.replace(f"{_PARAM}: ", f"{wanted.param}: ", 1), wanted.param


def _spec(wanted: StructuredOutputs) -> GrammarSpec:
    backend = wanted.backend or ""
    if wanted.json is not None or wanted.json_object:
        schema = {"type": "object"} if wanted.json is None else _schema(wanted.json)
        return GrammarSpec(
            kind="json_schema",
            text=_dumps(_prepared(schema, wanted)),
            whitespace="" if wanted.disable_any_whitespace else wanted.whitespace_pattern,
            backend=backend,
        )
    if wanted.structural_tag is not None:
        tag = _parsed(wanted.structural_tag, "structural_tag")
        # It only grows from here on, and has as many schemas as it likes.
        _check_length(_dumps(tag), "structural_tag")
        return GrammarSpec(
            kind="structural_tag",
            text=_dumps(_prepared_tag(tag, wanted)),
            backend=backend,
            best_effort=wanted.best_effort,
        )
    if wanted.choice is not None:
        return GrammarSpec(kind="choice", text=_dumps(_choices(wanted.choice)), backend=backend)
    if wanted.regex is not None:
        return GrammarSpec(kind="regex", text=_text(wanted.regex, "regex"), backend=backend)
    grammar = _text(wanted.grammar, "grammar")
    return GrammarSpec(kind="grammar", text=grammar, backend=backend)


def _schema(given: object) -> object:
    describe = getattr(given, "model_json_schema", None)
    return describe() if callable(describe) else _parsed(given, "json")


def _parsed(given: object, name: str) -> Any:
    """An object as it is, or as JSON text."""
    if not isinstance(given, str):
        return given
    _check_length(given, name)
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:
        raise _refusal(f"{name} is not JSON: {error}") from None


def _prepared(schema: object, wanted: StructuredOutputs) -> object:
    check_bounds(schema)
    return schema if wanted.disable_additional_properties is False else closed(schema)


def _prepared_tag(node: Any, wanted: StructuredOutputs, depth: int = 0) -> Any:
    """A structural tag with the schemas in it prepared."""
    if depth > 64:
        raise _refusal("structural_tag is nested more than 64 deep")
    if isinstance(node, list):
        return [_prepared_tag(each, wanted, depth + 1) for each in node]
    if not isinstance(node, Mapping):
        return node
    return {
        key: _prepared(_parsed(value, key), wanted)
        if key in ("json_schema", "schema")
        else _prepared_tag(value, wanted, depth + 1)
        for key, value in node.items()
    }


def _check_length(text: str, name: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise _refusal(f"{name} has {len(text)} characters; {MAX_CHARACTERS} are allowed")


def _choices(given: object) -> list[str]:
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in given):
        raise _refusal("choice must be a list of texts")
    if not 0 < len(given) <= MAX_CHOICES or "" in given:
        raise _refusal(f"choice must have 1 to {MAX_CHOICES} texts, none of them empty")
    return list(dict.fromkeys(given))


def _text(given: object, name: str) -> str:
    if not isinstance(given, str):
        raise _refusal(f"{name} must be a text")
    return given


def _dumps(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _refusal(f"it is not JSON: {error}") from None


def _refusal(what: str) -> RequestError:
    return RequestError(f"{_PARAM}: {what}", _PARAM)
