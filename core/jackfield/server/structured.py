"""``response_format``, ``structured_outputs`` and forced calls: one structure of the output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from jackfield.contracts.grammar import KINDS, StructuredOutputs
from jackfield.errors import RequestError
from jackfield.server.request_fields import SamplingFields

_FORMATS = ("text", "json_object", "json_schema", "structural_tag")


def structured_outputs(request: SamplingFields) -> StructuredOutputs | None:
    """What the request asks for; ``RequestError`` names the field that is wrong."""
    by_format = _by_format(request.response_format)
    given = request.structured_outputs
    if given is None or not any(given.get(kind) for kind in KINDS):
        if given is not None and not given.keys() <= {"backend", "whitespace_pattern"}:
            return _converted(given)  # it says what is missing
        return by_format
    if by_format is not None:
        raise RequestError(
            "'structured_outputs' and 'response_format' exclude each other",
            param="structured_outputs",
        )
    return _converted(given)


def _converted(given: Mapping[str, Any]) -> StructuredOutputs:
    values = {name: value for name, value in given.items() if value is not None}
    backend = values.get("backend")
    if isinstance(backend, str):
        # vLLM's "xgrammar:no-fallback"; a backend that is named is never replaced here.
        values["backend"] = backend.partition(":")[0]
    tag = values.get("structural_tag")
    if isinstance(tag, str | Mapping):
        values["structural_tag"] = _todays_tag(tag)
    try:
        return msgspec.convert(values, StructuredOutputs)
    except msgspec.ValidationError as error:
        raise RequestError(f"structured_outputs: {error}", param="structured_outputs") from None


def _todays_tag(given: str | Mapping[str, Any]) -> str | Mapping[str, object]:
    """The older form in today's words; what is no JSON is told of when it is compiled."""
    try:
        tag = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return given
    if not isinstance(tag, Mapping) or not {"structures", "triggers"} & tag.keys():
        return given
    return _tag(tag)


def _by_format(given: Mapping[str, Any] | None) -> StructuredOutputs | None:
    if given is None:
        return None
    kind = given.get("type")
    if kind == "text":
        return None
    param = "response_format"
    if kind == "json_object" and given.get("value") is None:
        # As instructor and llama.cpp's clients have it, the schema of the object stands beside.
        if given.get("schema") is not None:
            return _json_schema(given, param)
        return StructuredOutputs(json_object=True, param=param)
    if kind in ("json", "json_object", "regex"):
        return _value(kind, given.get("value"), param)
    if kind == "json_schema":
        return _json_schema(given.get("json_schema"), f"{param}.json_schema")
    if kind == "structural_tag":
        return StructuredOutputs(structural_tag=_tag(given), param=param)
    raise RequestError(
        f"'response_format.type' must be one of {', '.join(_FORMATS)}",
        param="response_format.type",
    )


def _value(kind: str, value: object, param: str) -> StructuredOutputs:
    """As TGI's clients have it: a JSON Schema, or a regex, is the format's ``value``."""
    if kind == "regex" and isinstance(value, str):
        return StructuredOutputs(regex=value, param=param)
    if kind == "regex":
        raise RequestError(f"'{param}.value' must be a regex", param=param)
    if not isinstance(value, Mapping):
        raise RequestError(f"'{param}.value' must be a JSON Schema", param=param)
    return StructuredOutputs(json=value, param=param)


def _json_schema(given: object, param: str) -> StructuredOutputs:
    schema = given.get("schema") if isinstance(given, Mapping) else None
    if not isinstance(schema, Mapping | bool):
        raise RequestError(f"'{param}.schema' must be a JSON Schema", param=param)
    return StructuredOutputs(json=schema, param="response_format")


def _tag(given: Mapping[str, Any]) -> Mapping[str, object]:
    """xgrammar's own form, or the older one with ``structures`` and ``triggers``."""
    if "format" in given:
        return given
    structures, triggers = given.get("structures"), given.get("triggers")
    if not isinstance(structures, list) or not isinstance(triggers, list):
        raise RequestError(
            "'response_format' of a structural tag needs 'format', or 'structures' and 'triggers'",
            param="response_format",
        )
    tags = []
    for index, structure in enumerate(structures):
        if not isinstance(structure, Mapping) or not {"begin", "end"} <= structure.keys():
            raise RequestError(
                f"'response_format.structures[{index}]' needs 'begin', 'schema' and 'end'",
                param=f"response_format.structures[{index}]",
            )
        content = {"type": "json_schema", "json_schema": structure.get("schema", True)}
        tag = {"type": "tag", "begin": structure["begin"], "end": structure["end"]}
        tags.append({**tag, "content": content})
    return _structural_tag({"type": "triggered_tags", "triggers": triggers, "tags": tags})


def with_calls(
    wanted: StructuredOutputs | None,
    calls: Mapping[str, object] | None,
    required: Mapping[str, object] | None,
    *,
    best_effort: bool = False,
) -> StructuredOutputs | None:
    """The structure of an output that may call tools.

    ``calls`` is the parser's structural tag for the tool choice, None where calls are not held to
    a structure; ``required`` the one that allows nothing but calls. An output that must be JSON
    may then be calls instead. With ``best_effort`` calls go free where no backend can do a tool's
    schema.
    """
    if calls is None:
        return wanted
    if wanted is None:
        return StructuredOutputs(structural_tag=calls, best_effort=best_effort, param="tools")
    schema = {"type": "object"} if wanted.json_object else wanted.json
    if schema is None or required is None:
        raise RequestError(
            f"'{wanted.param}' together with 'tools' must be a JSON Schema", param=wanted.param
        )
    answer = {"type": "json_schema", "json_schema": schema}
    either = {"type": "or", "elements": [answer, required["format"]]}
    return StructuredOutputs(
        structural_tag=_structural_tag(either),
        disable_additional_properties=wanted.disable_additional_properties,
        backend=wanted.backend,
        param=wanted.param,
    )


def _structural_tag(form: Mapping[str, object]) -> Mapping[str, object]:
    return {"type": "structural_tag", "format": form}
