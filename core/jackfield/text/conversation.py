"""A client's messages to what chat templates expect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from jackfield.errors import RequestError
from jackfield.text.content_format import ContentFormat

Message = Mapping[str, object]
REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
"""What clients and templates call a message's reasoning; the first that is there counts."""
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def prepare_messages(
    messages: Sequence[Message],
    content_format: ContentFormat,
    *,
    knows_developer: bool,
    takes_one_text: bool = False,
) -> list[dict[str, object]]:
    """New messages: content in the template's format (the texts of several parts joined by
    newlines where it wants a string), tool-call arguments as objects, ``developer`` as
    ``system`` where the template does not know the role. ``takes_one_text``: of a message that
    calls tools the template takes reasoning or content, not both. ``RequestError`` names the
    message, and the part, that cannot be used."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RequestError("messages must be a list of at least one message", param="messages")
    prepared = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise RequestError(f"{where} must be an object", param=where)
        made = _prepare(message, content_format, where, knows_developer)
        if takes_one_text:
            _join_texts(made)
        prepared.append(made)
    return prepared


def has_later_system(messages: Sequence[Message]) -> bool:
    """Whether a system message stands behind another message."""
    return any(message["role"] == "system" for message in messages[1:])


def with_one_system(
    messages: Sequence[dict[str, object]], content_format: ContentFormat
) -> list[dict[str, object]]:
    """Prepared messages with the instructions at the beginning as one message, and those that come
    later as the user's."""
    roles = [message["role"] for message in messages]
    first = next((index for index, role in enumerate(roles) if role != "system"), len(roles))
    leading, later = list(messages[:first]), messages[first:]
    if len(leading) > 1:
        text = "\n\n".join(_text(message["content"]) for message in leading)
        leading = [{**leading[0], "content": _content(text, content_format, "")}]
    return leading + [
        {**message, "role": "user"} if message["role"] == "system" else message for message in later
    ]


def _text(content: object) -> str:
    """A prepared message's content as one text."""
    return content if isinstance(content, str) else str(_content(content, "string", ""))


def _prepare(
    message: Message, content_format: ContentFormat, where: str, knows_developer: bool
) -> dict[str, object]:
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise RequestError(f"{where}.role must be a string", param=f"{where}.role")
    result = dict(message)
    if role == "developer" and not knows_developer:
        result["role"] = "system"
    result["content"] = _content(message.get("content"), content_format, f"{where}.content")
    if message.get("tool_calls") is not None:
        result["tool_calls"] = _tool_calls(message["tool_calls"], f"{where}.tool_calls")
        if not result["tool_calls"]:
            del result["tool_calls"]  # templates ask only whether the key is there
    return result


def _join_texts(message: dict[str, object]) -> None:
    """What was said before the calls goes to the end of the reasoning."""
    content = message["content"]
    if not (message.get("tool_calls") and content and isinstance(content, str)):
        return
    for name in REASONING_NAMES:
        if message.get(name):
            message[name], message["content"] = f"{message[name]}\n{content}", ""


# --- content ---------------------------------------------------------------------------


def _content(content: object, content_format: ContentFormat, where: str) -> object:
    if content is None:
        content = ""
    if isinstance(content, str):
        if content_format == "openai":
            return [{"type": "text", "text": content}] if content else []
        return content
    if not isinstance(content, Sequence):
        raise RequestError(f"{where} must be a string or a list of parts", param=where)
    texts = [_part_text(part, f"{where}[{index}]") for index, part in enumerate(content)]
    if content_format == "string":
        return "\n".join(texts)
    return [{"type": "text", "text": text} for text in texts]


def _part_text(part: object, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(kind, str):
        raise RequestError(f"{where} must be an object with a type", param=where)
    if kind not in _TEXT_PARTS:
        raise RequestError(
            f"{where} is of type {kind[:64]!r}, and this model takes only text", param=where
        )
    text = part.get(_TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise RequestError(f"{where}.{_TEXT_PARTS[kind]} must be a string", param=where)
    return text


# --- tool calls ------------------------------------------------------------------------


def _tool_calls(calls: object, where: str) -> list[dict[str, object]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise RequestError(f"{where} must be a list", param=where)
    prepared = []
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(call, Mapping) or not isinstance(function, Mapping):
            raise RequestError(
                f"{where}[{index}] must be an object with a function", param=f"{where}[{index}]"
            )
        place = f"{where}[{index}].function"
        if not isinstance(function.get("name"), str):
            raise RequestError(f"{place}.name must be a string", param=f"{place}.name")
        arguments = _arguments(function.get("arguments"), f"{place}.arguments")
        prepared.append({**call, "function": {**function, "arguments": arguments}})
    return prepared


def _arguments(arguments: object, where: str) -> Mapping[str, object]:
    """Clients send JSON text; templates print it with their own spacing, from an object."""
    if arguments is None or arguments == "":
        return {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where} is not valid JSON: {error}", param=where) from error
    if not isinstance(arguments, Mapping):
        raise RequestError(f"{where} must hold a JSON object", param=where)
    return arguments


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
