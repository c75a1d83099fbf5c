"""Prompts as a request gives them beside a chat: one text, one list of ids, or a list of such."""

from __future__ import annotations

from typing import Any, Protocol

from jackfield.errors import RequestError
from jackfield.server.door import Frontend

Encoded = tuple[str | None, tuple[int, ...]]
"""A prompt's text, if it came as one, and its ids."""

_IDS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}


def inputs_schema(**bounds: int) -> dict[str, Any]:
    """For the OpenAPI document. ``bounds``: of a list of prompts."""
    items = {"anyOf": [{"type": "string"}, _IDS]}
    return {
        "anyOf": [
            {"type": "string"},
            _IDS,
            {"type": "array", "items": items, "minItems": 1, **bounds},
        ]
    }


def split_inputs(value: object, name: str) -> list[str | list[int]]:
    """The prompts in the field ``name`` of a request. A union of types would try every branch on
    every token id."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise RequestError(
            f"'{name}' must be a text, a list of token ids, or a non-empty list of such", param=name
        )
    if set(map(type, value)) == {int}:
        return [value]
    for index, one in enumerate(value):
        is_ids = isinstance(one, list) and one and set(map(type, one)) == {int}
        if not isinstance(one, str) and not is_ids:
            raise RequestError(
                f"'{name}[{index}]' must be a text or a non-empty list of token ids",
                param=f"{name}[{index}]",
            )
    return value


class EncodingFields(Protocol):
    """What a request says of how its prompts become ids; None is silence."""

    @property
    def add_special_tokens(self) -> bool | None: ...
    @property
    def truncate_prompt_tokens(self) -> int | None: ...


def encode_input(
    frontend: Frontend, value: str | list[int], name: str, request: EncodingFields
) -> Encoded:
    """One of the prompts in the field ``name`` of a request, checked."""
    prompts, limit = frontend.llm.prompts, request.truncate_prompt_tokens
    if not isinstance(value, str):
        return None, prompts.from_ids(value, truncate_prompt_tokens=limit, param=name)
    frontend.require_tokenizer()
    special = request.add_special_tokens is not False
    ids = prompts.from_text(
        value, add_special_tokens=special, truncate_prompt_tokens=limit, param=name
    )
    return value, ids
