"""A request of the Messages API in the words of a chat request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jackfield.errors import RequestError
from jackfield.server.messages.conversation import Conversation
from jackfield.server.messages.request import (
    CountTokensRequest,
    MessagesRequest,
    Thinking,
    ToolChoice,
)

SPELLING: Mapping[str, str] = {
    "response_format": "output_config.format",
    "response_format.json_schema": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "stop": "stop_sequences",
    "thinking_token_budget": "thinking.budget_tokens",
}
"""Chat's name -> the name here."""

_CHOICES = {"any": "required", "none": "none"}
# What the templates of reasoning models call the switch.
_SWITCHES = ("enable_thinking", "thinking")


def conversation_of(request: CountTokensRequest) -> Conversation:
    """The instructions and the messages, edited as the request wants."""
    conversation = Conversation()
    if request.system:
        conversation.add_system(request.system)
    for index, message in enumerate(request.messages):
        conversation.add(message, index)
    management = request.context_management
    for edit in management.edits if management is not None else ():
        if edit.num_kept is not None:
            conversation.clear_thinking(edit.num_kept)
    return conversation


def chat_fields(
    request: CountTokensRequest,
    data: Mapping[str, Any],
    conversation: Conversation,
    *,
    knows_thinking: bool,
) -> dict[str, Any]:
    """The chat request; ``data`` is what ``request`` was made of. ``knows_thinking``: the server
    can tell thinking from text."""
    chat: dict[str, Any] = {
        name: data[name] for name in request.passed if data.get(name) is not None
    }
    chat["messages"] = conversation.messages
    if conversation.continues:
        chat |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.tools:
        chat["tools"] = [_tool(tool) for tool in data["tools"]]
    if request.tool_choice is not None:
        _choose_tools(chat, request.tool_choice)
    output = request.output_config
    if output is not None and output.effort is not None:
        chat["reasoning_effort"] = output.effort
    if request.thinking is not None:
        _think(chat, request.thinking, has_budget=knows_thinking)
    if output is not None and output.format is not None:
        chat["response_format"] = _response_format(output.format)
    if isinstance(request, MessagesRequest):
        chat["max_tokens"] = request.max_tokens
        if request.stop_sequences:
            chat["stop"] = request.stop_sequences
    return chat


def places(conversation: Conversation) -> dict[str, str]:
    """What each chat message is called in the request, for errors."""
    return {f"messages[{index}]": place for index, place in enumerate(conversation.places)}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _choose_tools(chat: dict[str, Any], choice: ToolChoice) -> None:
    if choice.disable_parallel_tool_use:
        chat["parallel_tool_calls"] = False
    if choice.type == "auto":
        return  # it holds anyway, if there are tools
    if choice.type != "tool":
        chat["tool_choice"] = _CHOICES[choice.type]
        return
    if choice.name is None:
        raise RequestError("'tool_choice.name' must name the tool", param="tool_choice.name")
    chat["tool_choice"] = {"type": "function", "function": {"name": choice.name}}


def _think(chat: dict[str, Any], thinking: Thinking, *, has_budget: bool) -> None:
    """A template that has no such switch is not moved by it. A budget is the most thinking that
    there may be: where none is known, there is none above it."""
    if thinking.type == "disabled":
        chat["reasoning_effort"] = "none"
        return
    switches = dict.fromkeys(_SWITCHES, True)
    chat["chat_template_kwargs"] = {**switches, **chat.get("chat_template_kwargs", {})}
    if thinking.budget_tokens is not None and has_budget:
        chat["thinking_token_budget"] = thinking.budget_tokens


def _response_format(given: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("type") != "json_schema":
        raise RequestError(
            "'output_config.format.type' must be json_schema", param="output_config.format.type"
        )
    schema = {"name": "output", "schema": given.get("schema"), "strict": True}
    return {"type": "json_schema", "json_schema": schema}
