"""Named values of every JSON type: the arguments of tools and the properties of schemas."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tools.mini.source import Source, join_identifier

Value = str | int | float | bool | list[str]


@dataclass(frozen=True, slots=True)
class Field:
    """A property with the value that is meant. ``words`` is its name as people say it."""

    name: str
    words: str
    schema: dict[str, Any]
    value: Value

    @property
    def kind(self) -> str:
        return "enum" if "enum" in self.schema else str(self.schema["type"])


_COMMON: tuple[tuple[str, str, Callable[[Source], Value]], ...] = (
    ("name", "string", Source.person), ("user", "string", Source.first_name), ("city", "string", Source.city),
    ("location", "string", Source.city), ("country", "string", Source.coined), ("email", "string", Source.email),
    ("date", "string", Source.date), ("start_date", "string", Source.date), ("time", "string", Source.time),
    ("title", "string", Source.phrase), ("query", "string", Source.phrase), ("message", "string", Source.phrase),
    ("subject", "string", Source.phrase), ("text", "string", Source.phrase), ("color", "string", Source.adjective),
    ("category", "string", Source.noun), ("path", "string", Source.address), ("url", "string", Source.address),
    ("id", "string", Source.code), ("order_id", "string", Source.code), ("code", "string", Source.code),
    ("username", "string", Source.word), ("recipient", "string", Source.person), ("product", "string", Source.noun),
    ("destination", "string", Source.city), ("author", "string", Source.person), ("label", "string", Source.word),
    ("age", "integer", lambda s: s.between(1, 99)), ("quantity", "integer", lambda s: s.between(1, 50)),
    ("count", "integer", Source.integer), ("limit", "integer", Source.integer), ("year", "integer", lambda s: s.between(1900, 2050)),
    ("duration", "integer", Source.integer), ("user_id", "integer", Source.integer), ("page", "integer", Source.integer),
    ("price", "number", Source.decimal), ("amount", "number", Source.decimal), ("temperature", "number", Source.decimal),
    ("weight", "number", Source.decimal), ("urgent", "boolean", lambda s: s.chance(0.5)),
    ("active", "boolean", lambda s: s.chance(0.5)), ("public", "boolean", lambda s: s.chance(0.5)),
)  # fmt: skip
_KINDS = (
    ("string",) * 9
    + ("integer",) * 4
    + ("number",) * 2
    + ("boolean",) * 2
    + ("enum",) * 2
    + ("array",)
)


def invent_fields(source: Source, count: int) -> list[Field]:
    """Fields of different names. In the evaluation every name is one that was never trained on."""
    fields: dict[str, Field] = {}
    while len(fields) < count:
        field = (
            _common(source)
            if source.chance(0.35) and not source.held_apart
            else invent_field(source)
        )
        fields.setdefault(field.name.lower(), field)
    return list(fields.values())


def _common(source: Source) -> Field:
    name, kind, make = source.pick(_COMMON)
    words = name.replace("_", " ")
    if source.chance(0.1):
        name = join_identifier(name.split("_"), "camel")
    return Field(name, words, _described(source, words, {"type": kind}), make(source))


def invent_field(source: Source) -> Field:
    """A name that nobody has used, with a value."""
    parts = [source.word() for _ in range(source.pick((1, 1, 2, 2, 3)))]
    name = join_identifier(parts, source.pick(("_", "_", "_", "camel", "-")))
    words = " ".join(parts)
    kind = source.pick(_KINDS)
    schema: dict[str, Any] = {"type": kind}
    value: Value
    if kind == "string":
        value = source.text()
    elif kind == "integer":
        value = source.integer()
    elif kind == "number":
        value = source.decimal() if source.chance(0.8) else source.integer()
    elif kind == "boolean":
        value = source.chance(0.5)
    elif kind == "array":
        value = [source.word() for _ in range(source.between(1, 4))]
        schema = {"type": "array", "items": {"type": "string"}}
    else:
        choices = list(dict.fromkeys(source.word() for _ in range(source.between(2, 5))))
        value = source.pick(choices)
        schema = {"type": "string", "enum": choices} if source.chance(0.9) else {"enum": choices}
    return Field(name, words, _described(source, words, schema), value)


def _described(source: Source, words: str, schema: dict[str, Any]) -> dict[str, Any]:
    kind = source.rng.random()
    if kind < 0.35:
        return schema
    if kind < 0.45:
        return {"title": words.title(), **schema}
    text = source.pick(
        (
            "the {w}",
            "The {w}",
            "The {w}.",
            "{w}",
            "{w} of the {n}",
            "The {w} of the {a} {n}, if any",
            "{a} {w}",
        )
    )
    description = text.format(w=words, n=source.noun(), a=source.adjective())
    if source.chance(0.8):
        return {**schema, "description": description}
    return {"description": description, **schema}


# --- saying it ---------------------------------------------------------------------------


def spoken(value: Value, source: Source) -> str:
    """A value as people write it into a sentence."""
    if isinstance(value, bool):
        return source.pick(("true", "yes", "on")) if value else source.pick(("false", "no", "off"))
    if isinstance(value, list):
        if source.chance(0.2):
            return json.dumps(value, ensure_ascii=False)
        return f"{', '.join(value[:-1])} and {value[-1]}" if len(value) > 1 else value[0]
    if isinstance(value, int | float):
        return str(value)
    kind = source.rng.random()
    return value if kind < 0.7 else f'"{value}"' if kind < 0.86 else f"'{value}'"


_MENTIONS = (
    "{w} {v}", "{w} {v}", "{w}: {v}", "{w} = {v}", "the {w} is {v}", "{w} {v}", "{w} set to {v}", "{w} should be {v}",
    "{v} as the {w}", "{v} as {w}", "{n}={v}", "a {w} of {v}",
)  # fmt: skip


def mention(field: Field, source: Source) -> str:
    """A field with its value: ``size 5``, ``the size is 5``."""
    words = field.words if source.chance(0.85) else field.name
    text = source.pick(_MENTIONS)
    return text.format(w=words, n=field.name, v=spoken(field.value, source))


def mentions(fields: Sequence[Field], source: Source) -> str:
    """Several, in any order."""
    parts = [mention(field, source) for field in source.some(fields, len(fields))]
    if len(parts) == 1:
        return parts[0]
    if source.chance(0.4):
        return ", ".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def object_schema(
    fields: Sequence[Field], required: Sequence[str], source: Source
) -> dict[str, Any]:
    """A flat JSON schema, in one of the orders in which programs write its keys."""
    properties = {field.name: field.schema for field in fields}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": list(required),
    }
    if source.chance(0.2):
        schema = {"properties": properties, "required": list(required), "type": "object"}
    if not required and source.chance(0.5):
        del schema["required"]
    if source.chance(0.2):
        schema["additionalProperties"] = False
    if source.chance(0.1):
        schema = {"title": source.coined(), **schema}
    return schema
