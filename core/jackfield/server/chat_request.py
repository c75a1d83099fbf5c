"""The body of ``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, WithJsonSchema, model_validator

from jackfield.errors import RequestError
from jackfield.server.request_fields import RequestFields, StrictModel
from jackfield.server.spellings import settle_spellings

# How far --max-tools may be raised.
MAX_TOOLS = 16384

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
ShortName = Annotated[str, StringConstraints(max_length=64)]


_TEXT_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
    "additionalProperties": False,
}
_MESSAGES_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}]},
        },
        "required": ["role", "content"],
    },
}
"""For the OpenAPI document: what every role has; ``check_messages`` knows the rest."""


class ToolFunction(StrictModel):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(StrictModel):
    """One tool; only functions exist."""

    type: Literal["function"]
    function: ToolFunction


class ChatRequest(RequestFields):
    """OpenAI's chat completion request with vLLM's extra parameters."""

    sampling_fields: ClassVar[frozenset[str]] = RequestFields.sampling_fields | {
        "thinking_token_budget",
    }

    # Checked by ``check_messages``: templates see messages as they came.
    messages: Annotated[
        list[dict[str, Any]],
        Field(min_length=1, max_length=16384),
        WithJsonSchema(_MESSAGES_SCHEMA),
    ]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: ShortName | None = None
    thinking_token_budget: int | None = None
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _check_together(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise RequestError("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
        if self.continue_final_message and self.add_generation_prompt:
            raise RequestError(
                "'continue_final_message' and 'add_generation_prompt' exclude each other",
                param="continue_final_message",
            )
        return self


_CONTENT = frozenset({"role", "content", "name"})
_KEPT_BY_CLIENTS = frozenset(
    {
        "annotations",
        "images",
        "parsed",
        "provider_specific_fields",
        "reasoning_details",
        "thinking_blocks",
    }
)
"""What client libraries keep beside an answer, and send with it when they send it back."""
_FIELDS: Mapping[str, frozenset[str]] = {
    "system": _CONTENT,
    "developer": _CONTENT | {"tools"},
    "user": _CONTENT,
    "assistant": _CONTENT | {"tool_calls", "reasoning", "refusal"} | _KEPT_BY_CLIENTS,
    "tool": _CONTENT | {"tool_call_id"},
    "function": _CONTENT,
}
_TEXT_FIELDS = frozenset({"name", "reasoning", "refusal", "tool_call_id"})
_PART_FIELDS: Mapping[str, str] = {"text": "text", "input_text": "text", "refusal": "refusal"}


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Checks role, fields and content of each message; renames old spellings in place."""
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        role = message.get("role")
        known = _FIELDS.get(role) if isinstance(role, str) else None
        if known is None:
            raise RequestError(
                f"'{path}.role' must be one of {', '.join(_FIELDS)}", param=f"{path}.role"
            )
        if not message.keys() <= known:
            settle_spellings(message, known, f"{path}.")
        for name in _TEXT_FIELDS & message.keys():
            _check_text(message, name, path)
        _check_content(message, role == "assistant", path)
        if message.get("tool_calls") is not None:
            message["tool_calls"] = _tool_calls(message["tool_calls"], f"{path}.tool_calls")


def _check_text(container: Mapping[str, Any], name: str, path: str) -> None:
    if not isinstance(container.get(name), str | None):
        raise RequestError(f"'{path}.{name}' must be a text", param=f"{path}.{name}")


def _check_content(message: dict[str, Any], may_be_absent: bool, path: str) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if content is None and may_be_absent:
        return
    if not isinstance(content, list):
        raise RequestError(
            f"'{path}.content' must be a text or a list of parts", param=f"{path}.content"
        )
    message["content"] = [
        _text_part(part, f"{path}.content[{index}]") for index, part in enumerate(content)
    ]


def _text_part(part: object, path: str) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or not isinstance(part, dict):
        raise RequestError(f"'{path}.type' must be a text", param=f"{path}.type")
    if kind not in _PART_FIELDS:
        raise RequestError(
            f"'{path}.type': only text parts are supported; {kind[:32]!r} input is not built yet",
            param=f"{path}.type",
            code="unsupported_parameter",
        )
    text = part.get(_PART_FIELDS[kind])
    if not isinstance(text, str):
        raise RequestError(
            f"'{path}.{_PART_FIELDS[kind]}' must be a text", param=f"{path}.{_PART_FIELDS[kind]}"
        )
    return {"type": "text", "text": text}


def _tool_calls(calls: object, path: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or len(calls) > MAX_TOOLS:
        raise RequestError(f"'{path}' must be a list of at most {MAX_TOOLS} calls", param=path)
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RequestError(
                f"'{path}[{index}].function.name' must be a text",
                param=f"{path}[{index}].function.name",
            )
        _check_text(call, "id", f"{path}[{index}]")
        if not isinstance(function.get("arguments", ""), str | dict):
            raise RequestError(
                f"'{path}[{index}].function.arguments' must be JSON as a text",
                param=f"{path}[{index}].function.arguments",
            )
    return calls
