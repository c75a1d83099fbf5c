"""Anthropic's messages, made of blocks, to chat messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jackfield.errors import RequestError
from jackfield.server.json_bytes import dumps

_BILLING = "x-anthropic-billing-header:"
"""What a block of the instructions begins with that Anthropic's agents send for its accounts. It is
another one in every request: in the prompt it would keep the prefix cache from ever being hit."""


class Conversation:
    """Chat messages, built message by message; ``places`` says where each came from.

    Tool results are messages of their own, in front of what the user says beside them.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.places: list[str] = []

    def add_system(self, system: str | Sequence[Any]) -> None:
        """The instructions, in front of everything."""
        content = _text(system, "system")
        if isinstance(content, list):
            content = [part for part in content if not part["text"].startswith(_BILLING)]
        if content:
            self._append({"role": "system", "content": content}, "system")

    def add(self, message: dict[str, Any], index: int) -> None:
        """One message of the request."""
        place = f"messages[{index}]"
        role, content = message.get("role"), message.get("content")
        unknown = message.keys() - {"role", "content"}
        if unknown:
            name = min(unknown)
            raise RequestError(
                f"Unknown field '{place}.{name[:64]}'",
                param=f"{place}.{name[:64]}",
                code="unknown_parameter",
            )
        if role not in ("user", "assistant", "system"):
            raise RequestError(
                f"'{place}.role' must be user, assistant or system", param=f"{place}.role"
            )
        if isinstance(content, str) or role == "system":
            self._append({"role": role, "content": _text(content, f"{place}.content")}, place)
            return
        if not isinstance(content, list):
            raise _not_blocks(f"{place}.content")
        if role == "assistant":
            self._add_assistant(content, place)
        else:
            self._add_user(content, place)

    def clear_thinking(self, num_kept: int) -> None:
        """Takes the thinking out of all but the last ``num_kept`` messages that have some."""
        thinking = [message for message in self.messages if "reasoning" in message]
        for message in thinking[:-num_kept]:
            del message["reasoning"]

    @property
    def continues(self) -> bool:
        """Whether the answer goes on where the last message ends."""
        return bool(self.messages) and self.messages[-1]["role"] == "assistant"

    def _add_user(self, blocks: Sequence[Any], place: str) -> None:
        texts: list[dict[str, str]] = []
        for index, block in enumerate(blocks):
            where = f"{place}.content[{index}]"
            if _kind(block, where, ("text", "tool_result")) == "text":
                texts.append(_text_block(block, where))
                continue
            result = _text(block.get("content", ""), f"{where}.content")
            call_id = _string(block, "tool_use_id", where)
            self._append({"role": "tool", "tool_call_id": call_id, "content": result}, where)
        if texts:
            self._append({"role": "user", "content": texts}, place)

    def _add_assistant(self, blocks: Sequence[Any], place: str) -> None:
        texts: list[dict[str, str]] = []
        thinking: list[str] = []
        calls: list[dict[str, Any]] = []
        for index, block in enumerate(blocks):
            where = f"{place}.content[{index}]"
            kind = _kind(block, where, ("text", "thinking", "tool_use"))
            if kind == "text":
                texts.append(_text_block(block, where))
            elif kind == "thinking":
                thinking.append(_string(block, "thinking", where))
            else:
                calls.append(_call(block, where))
        message: dict[str, Any] = {"role": "assistant", "content": texts or None}
        if thinking:
            message["reasoning"] = "\n".join(thinking)
        if calls:
            message["tool_calls"] = calls
        self._append(message, place)

    def _append(self, message: dict[str, Any], place: str) -> None:
        self.messages.append(message)
        self.places.append(place)


def _call(block: dict[str, Any], where: str) -> dict[str, Any]:
    arguments = block.get("input")
    if not isinstance(arguments, dict):
        raise RequestError(f"'{where}.input' must be an object", param=f"{where}.input")
    function = {"name": _string(block, "name", where), "arguments": dumps(arguments).decode()}
    return {"id": _string(block, "id", where), "type": "function", "function": function}


def _text(content: object, place: str) -> str | list[dict[str, str]]:
    """A text, or text blocks as parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _not_blocks(place)
    parts = []
    for index, block in enumerate(content):
        where = f"{place}[{index}]"
        _kind(block, where, ("text",))
        parts.append(_text_block(block, where))
    return parts


def _kind(block: object, where: str, known: tuple[str, ...]) -> str:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str):
        raise RequestError(f"'{where}.type' must be a text", param=f"{where}.type")
    if kind not in known:
        raise RequestError(
            f"'{where}.type': {kind[:32]!r} blocks cannot be used here; only {', '.join(known)}",
            param=f"{where}.type",
            code="unsupported_parameter",
        )
    return kind


def _text_block(block: dict[str, Any], where: str) -> dict[str, str]:
    return {"type": "text", "text": _string(block, "text", where)}


def _string(block: dict[str, Any], name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise RequestError(f"'{where}.{name}' must be a text", param=f"{where}.{name}")
    return value


def _not_blocks(place: str) -> RequestError:
    return RequestError(f"'{place}' must be a text or a list of blocks", param=place)
