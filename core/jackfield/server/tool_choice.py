"""Whether a chat calls tools, and which: OpenAI's ``tool_choice`` with the tools it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from jackfield.errors import RequestError
from jackfield.server.chat_request import ChatRequest

Tools = Sequence[Mapping[str, Any]]
Kind = Literal["none", "auto", "required", "named"]

_WORDS = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """``tools`` are those that the model sees and may call, as the client wrote them; ``name`` is
    the one to be called for ``named``."""

    kind: Kind
    tools: Tools = ()
    name: str = ""

    @property
    def callable_tools(self) -> Tools:
        """The tools of which one must be called, or may be."""
        if self.kind != "named":
            return self.tools
        return [tool for tool in self.tools if _name_of(tool) == self.name]


def tool_choice(request: ChatRequest, data: Mapping[str, Any]) -> ToolChoice:
    """The choice of ``request``, which ``data`` was made into; without one, tools may be called."""
    choice = request.tool_choice
    if choice is None:
        choice = "auto" if request.tools else "none"
    if choice == "none" or (choice == "auto" and request.tools == []):
        return ToolChoice("none")
    if not request.tools:
        raise RequestError("'tool_choice' needs 'tools'", param="tool_choice")
    tools: Tools = data["tools"]
    if isinstance(choice, str):
        if choice not in _WORDS:
            raise _unknown()
        return ToolChoice(cast("Kind", choice), tools)
    if choice.get("type") == "function":
        return ToolChoice("named", tools, _known_name(choice, tools))
    if choice.get("type") == "allowed_tools":
        return _allowed(choice.get("allowed_tools"), tools)
    raise _unknown()


def _allowed(given: object, tools: Tools) -> ToolChoice:
    """The model sees the allowed tools alone."""
    mode = given.get("mode") if isinstance(given, dict) else None
    named = given.get("tools") if isinstance(given, dict) else None
    if mode not in ("auto", "required") or not isinstance(named, list) or not named:
        raise RequestError(
            "'tool_choice.allowed_tools' must have a 'mode' of auto or required and 'tools'",
            param="tool_choice.allowed_tools",
        )
    names = {_known_name(one, tools) for one in named}
    return ToolChoice(mode, [tool for tool in tools if _name_of(tool) in names])


def _known_name(choice: object, tools: Tools) -> str:
    """The name in ``{"type": "function", "function": {"name": ...}}``."""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise _unknown()
    if name not in map(_name_of, tools):
        raise RequestError(
            f"'tool_choice' names {name[:128]!r}, and no tool has that name", param="tool_choice"
        )
    return name


def _name_of(tool: Mapping[str, Any]) -> object:
    return tool["function"]["name"]


def _unknown() -> RequestError:
    return RequestError(
        "'tool_choice' must be 'none', 'auto', 'required', "
        '{"type": "function", "function": {"name": ...}} or {"type": "allowed_tools", ...}',
        param="tool_choice",
    )
