"""Answers checked against the models of the official SDKs: every type exact, no field unknown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, TypeAdapter


def check(model: Any, data: Any, *, known_extras: Iterable[str] = ()) -> Any:
    """``data`` as ``model``, without conversions. ``known_extras`` are our own additions."""
    # Through JSON: in strict mode that is where arrays are lists and numbers may be floats.
    value = TypeAdapter(model).validate_json(json.dumps(data), strict=True)
    extras = set(extra_fields(value)) - set(known_extras)
    assert not extras, f"{model} knows no {sorted(extras)}: {data}"
    return value


def extra_fields(value: Any) -> Iterator[str]:
    """The names of fields, at any depth, that the SDK's models do not have."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from extra_fields(getattr(value, name))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from extra_fields(one)


def sse_events(text: str) -> list[tuple[str | None, Any]]:
    """The events of a stream: name and data; ``[DONE]`` as it is."""
    events: list[tuple[str | None, Any]] = []
    for frame in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.splitlines())
        if fields:
            data = fields["data"]
            events.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return events
