"""The items of a response's input to chat messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jackfield.errors import RequestError
from jackfield.server.responses.tools import name_for_model

Item = Mapping[str, Any]
_ROLES = ("user", "assistant", "system", "developer")
_TEXT_PARTS = ("input_text", "output_text", "text")


class Conversation:
    """Chat messages, built item by item.

    What one turn of the model says (thinking, text, calls) is one assistant message, as chat
    templates expect. ``places`` says for each message which part of the request it came from,
    so that an error about it can name that.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.places: list[str] = []
        self._thinking: list[str] = []
        self._adders: Mapping[str, Callable[[Item, str], None]] = {
            "message": self._add_message,
            "function_call": self._add_call,
            "function_call_output": self._add_output,
            "reasoning": self._add_thinking,
        }

    def add_text(self, role: str, text: str, place: str) -> None:
        """A message that is nothing but text."""
        self._append({"role": role, "content": text}, place)

    def add_items(self, items: Sequence[Item], place: str) -> None:
        """Input items, or the output items of an earlier response."""
        for index, item in enumerate(items):
            self._add(item, f"{place}[{index}]")
        self._flush_thinking(place)

    def _add(self, item: Item, place: str) -> None:
        kind = item.get("type")
        if kind is None and "role" in item:
            kind = "message"
        adder = self._adders.get(kind) if isinstance(kind, str) else None
        if adder is None:
            known = ", ".join(self._adders)
            raise RequestError(
                f"'{place}.type': {str(kind)[:64]!r} items cannot be used; this server takes "
                f"{known}",
                param=f"{place}.type",
                code="unsupported_parameter",
            )
        adder(item, place)

    def _add_message(self, item: Item, place: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise RequestError(
                f"'{place}.role' must be one of {', '.join(_ROLES)}", param=f"{place}.role"
            )
        content = _content(item.get("content"), f"{place}.content")
        if role == "assistant":
            self._append(self._assistant({"content": content}), place)
        else:
            self._append({"role": role, "content": content}, place)

    def _add_call(self, item: Item, place: str) -> None:
        name, arguments = _text(item, "name", place), _text(item, "arguments", place)
        if item.get("namespace") not in (None, ""):
            name = name_for_model(_text(item, "namespace", place), name)
        call = {
            "id": _text(item, "call_id", place),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "assistant" or self._thinking:
            last = self._assistant({"content": None})
            self._append(last, place)
        last.setdefault("tool_calls", []).append(call)

    def _add_output(self, item: Item, place: str) -> None:
        output = _content(item.get("output"), f"{place}.output")
        message = {"role": "tool", "tool_call_id": _text(item, "call_id", place), "content": output}
        self._append(message, place)

    def _add_thinking(self, item: Item, place: str) -> None:
        parts = item.get("content") or item.get("summary") or []
        if not isinstance(parts, list) or not all(
            isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts
        ):
            raise RequestError(
                f"'{place}.content' must be a list of reasoning_text parts",
                param=f"{place}.content",
            )
        if not parts and item.get("encrypted_content") is not None:
            raise RequestError(
                f"'{place}.encrypted_content' cannot be read here: send the thinking as 'content'",
                param=f"{place}.encrypted_content",
                code="unsupported_parameter",
            )
        self._thinking += (part["text"] for part in parts)

    def _assistant(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message with the thinking that came before it."""
        message["role"] = "assistant"
        if self._thinking:
            message["reasoning"] = "\n".join(self._thinking)
            self._thinking.clear()
        return message

    def _append(self, message: dict[str, Any], place: str) -> None:
        self._flush_thinking(place)
        self.messages.append(message)
        self.places.append(place)

    def _flush_thinking(self, place: str) -> None:
        """Thinking that nothing of the model followed is a message of its own."""
        if self._thinking:
            message = self._assistant({"content": None})
            self.messages.append(message)
            self.places.append(place)


def _text(item: Item, field: str, place: str) -> str:
    value = item.get(field)
    if not isinstance(value, str):
        raise RequestError(f"'{place}.{field}' must be a text", param=f"{place}.{field}")
    return value


def _content(content: object, place: str) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"'{place}' must be a text or a list of parts", param=place)
    return [_part(part, f"{place}[{index}]") for index, part in enumerate(content)]


def _part(part: object, place: str) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise RequestError(f"'{place}.type' must be a text", param=f"{place}.type")
    if kind != "refusal" and kind not in _TEXT_PARTS:
        raise RequestError(
            f"'{place}.type': {kind[:32]!r} input cannot be used; only text is supported",
            param=f"{place}.type",
            code="unsupported_parameter",
        )
    field = "refusal" if kind == "refusal" else "text"
    return {"type": "text", "text": _text(part, field, place)}
