"""JSON objects for a schema that was never seen, with values that are given or made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tools.mini.example import Example, Message, Reply
from tools.mini.source import Source
from tools.mini.tasks.fields import Field, Value, invent_fields, mentions, object_schema

_SCHEMA_ASKED = (
    "Answer with JSON for this schema: {s}", "Give me a JSON object that matches this schema:\n{s}",
    "Return JSON that follows the schema {s}", "Write a JSON object for the schema:\n{s}", "JSON schema: {s}",
    "Reply only with JSON. Schema: {s}", "Your answer must be valid JSON for this schema:\n```json\n{s}\n```",
    "Fill in this schema: {s}", "Extract the data as JSON with this schema: {s}", "Use this JSON schema: {s}",
    "Respond in JSON format according to: {s}", "Generate an object for this JSON schema {s}",
)  # fmt: skip
_KEYS_ASKED = (
    "Give me a JSON object with the keys {k}.", "Write JSON with {k}", "Return a JSON object with {k}",
    "JSON with the fields {k}", "Make a JSON object that has {k}.", "Reply with a JSON object. Keys: {k}",
    "Answer as JSON with these keys: {k}.", "Output JSON with the properties {k}", "Create JSON with {k}",
    "I need a JSON object with {k}",
)  # fmt: skip


def json_object(source: Source) -> Example:
    """A flat object. With an eighth of the schemas, only some values are given."""
    source = source.strict()
    fields = invent_fields(source, source.pick((1, 2, 2, 3, 3, 4, 5, 6)))
    given = _given(fields, source)
    required = [field.name for field in fields]
    schema = object_schema(fields, required, source)
    instruction = _instruction(fields, schema, source)
    said = _said(given, source)
    answer = {
        field.name: field.value if field in given else _made_up(field, source) for field in fields
    }

    def check(reply: Reply) -> bool:
        return satisfies(reply.content, schema, {field.name: field.value for field in given})

    return Example(
        task="json",
        messages=_messages(instruction, said, source),
        thought=f"The keys are {', '.join(required)}.",
        answer=json.dumps(answer, ensure_ascii=False),
        check=check,
    )


def _given(fields: Sequence[Field], source: Source) -> list[Field]:
    kind = source.rng.random()
    if kind < 0.65:
        return list(fields)
    return [] if kind < 0.87 else source.some(fields, source.between(0, len(fields)))


def _made_up(field: Field, source: Source) -> Value:
    """A value of the type; strings are short words."""
    kinds: dict[str, Value] = {
        "string": source.noun(),
        "integer": source.between(1, 99),
        "number": round(source.rng.random() * 100, 1),
        "boolean": True,
        "array": [source.noun(), source.noun()],
    }
    return source.pick(field.schema["enum"]) if field.kind == "enum" else kinds[field.kind]


def _instruction(fields: Sequence[Field], schema: dict[str, Any], source: Source) -> str:
    kind = source.rng.random()
    if kind < 0.7:
        text = json.dumps(schema, indent=source.pick((None, None, None, 2)), ensure_ascii=False)
        return source.phrasing(_SCHEMA_ASKED).format(s=text)
    if kind < 0.9:
        keys = [f"{field.name} ({_type_of(field)})" for field in fields]
        return source.phrasing(_KEYS_ASKED).format(k=", ".join(keys))
    sample = {
        field.name: field.schema["enum"][0] if field.kind == "enum" else field.kind
        for field in fields
    }
    return f"Answer in this format: {json.dumps(sample, ensure_ascii=False)}"


def _type_of(field: Field) -> str:
    if field.kind == "enum":
        return " or ".join(field.schema["enum"])
    return "list of strings" if field.kind == "array" else field.kind


def _said(given: Sequence[Field], source: Source) -> str:
    if not given:
        return source.pick(
            (
                "",
                "",
                "Make up the values.",
                "Invent an example.",
                "Any values will do.",
                "Give an example.",
            )
        )
    return source.pick(
        (
            "{m}",
            "{m}.",
            "Values: {m}",
            "Data: {m}",
            "The values: {m}.",
            "Use {m}.",
            "Here it is: {m}",
            "With {m}",
            "Text: {m}",
        )
    ).format(m=mentions(given, source))


def _messages(instruction: str, said: str, source: Source) -> list[Message]:
    kind = source.rng.random()
    if said and kind < 0.25:
        return [{"role": "system", "content": instruction}, {"role": "user", "content": said}]
    if said and kind < 0.5:
        text = f"{said}\n{instruction}"
    else:
        text = f"{instruction}{source.pick((' ', chr(10), chr(10) * 2))}{said}".rstrip()
    return [{"role": "user", "content": text}]


def satisfies(text: str, schema: dict[str, Any], values: dict[str, Value]) -> bool:
    """Whether a text is a JSON object of a flat schema, with the values that were given."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    if not isinstance(found, dict) or found.keys() != schema["properties"].keys():
        return False
    if not all(_is_of(found[name], one) for name, one in schema["properties"].items()):
        return False
    return all(found[name] == value for name, value in values.items())


def _is_of(value: object, schema: dict[str, Any]) -> bool:
    if "enum" in schema:
        choices: list[str] = schema["enum"]
        return value in choices
    if schema["type"] == "array":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):
        return bool(schema["type"] == "boolean")
    types = {"string": (str,), "integer": (int,), "number": (int, float)}
    return isinstance(value, types.get(schema["type"], ()))
