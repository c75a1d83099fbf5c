"""A request of the Responses API in the words of a chat request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from jackfield.errors import RequestError
from jackfield.server.responses.conversation import Conversation
from jackfield.server.responses.request import InputTokensRequest, ResponsesRequest
from jackfield.server.responses.stored import History
from jackfield.server.responses.tools import functions

T = TypeVar("T")

SPELLING: Mapping[str, str] = {
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "tool_choice.allowed_tools": "tool_choice",
    "reasoning_effort": "reasoning.effort",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "logprobs": "top_logprobs",
    "verbosity": "text.verbosity",
}
"""Chat's name -> the name here."""


def given_items(request: InputTokensRequest) -> Sequence[Mapping[str, Any]]:
    """The request's own input as items."""
    if request.input is None:
        return []
    if isinstance(request.input, str):
        return [{"type": "message", "role": "user", "content": request.input}]
    return request.input


def conversation_of(request: InputTokensRequest, history: History) -> Conversation:
    """Instructions, what was said before, and the input."""
    conversation = Conversation()
    if request.instructions is not None:
        conversation.add_text("system", request.instructions, "instructions")
    conversation.add_items(history.items, "previous_response_id")
    conversation.add_items(given_items(request), "input")
    return conversation


def chat_fields(request: InputTokensRequest, data: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a chat request but its messages; ``data`` is what ``request`` was made of."""
    chat: dict[str, Any] = {
        name: data[name] for name in request.passed if data.get(name) is not None
    }
    if request.reasoning is not None and request.reasoning.effort is not None:
        chat["reasoning_effort"] = request.reasoning.effort
    if request.text is not None:
        if request.text.format is not None:
            chat["response_format"] = _response_format(request.text.format)
        if request.text.verbosity is not None:
            chat["verbosity"] = request.text.verbosity
    if request.tools:
        chat["tools"] = [_nested(tool) for tool in functions(data["tools"])]
    if request.tool_choice not in (None, "auto"):  # which holds anyway, if there are tools
        chat["tool_choice"] = _tool_choice(request.tool_choice)
    if isinstance(request, ResponsesRequest):
        if request.max_output_tokens is not None:
            chat["max_tokens"] = request.max_output_tokens
        if request.wants_logprobs:
            chat |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    return chat


def _response_format(given: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("type") != "json_schema":
        return dict(given)
    inner = {name: value for name, value in given.items() if name != "type"}
    return {"type": "json_schema", "json_schema": inner}


def _tool_choice(choice: str | Mapping[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, str):
        return choice
    kind = choice.get("type")
    if kind == "function":
        return _nested(choice)
    if kind == "allowed_tools":
        tools = choice.get("tools")
        named = [_nested(tool) for tool in tools] if isinstance(tools, list) else tools
        allowed = {"mode": choice.get("mode"), "tools": named}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    raise RequestError(
        f"'tool_choice.type': {str(kind)[:32]!r} cannot be chosen; only functions can be called",
        param="tool_choice.type",
        code="unsupported_parameter",
    )


def _nested(tool: object) -> dict[str, Any]:
    """A function as chat has it: its fields in an object of their own."""
    fields = tool if isinstance(tool, dict) else {}
    inner = {name: value for name, value in fields.items() if name != "type"}
    return {"type": "function", "function": inner}


def places(conversation: Conversation) -> dict[str, str]:
    """What each message is called in the request, for errors."""
    return {f"messages[{index}]": place for index, place in enumerate(conversation.places)}


def truncated(
    messages: Sequence[dict[str, Any]], attempt: Callable[[Sequence[dict[str, Any]]], T]
) -> T:
    """``attempt`` with as many of the latest messages as the context holds.

    Instructions at the beginning stay; a conversation is cut where the user speaks. Logarithmic
    in the number of turns.
    """
    first = next((i for i, message in enumerate(messages) if message["role"] != "system"), 0)
    cuts = [i for i in range(first + 1, len(messages)) if messages[i]["role"] == "user"]

    def tried(cut: int) -> T | RequestError:
        try:
            return attempt([*messages[:first], *messages[cut:]])
        except RequestError as error:
            if error.code != "context_length_exceeded":
                raise
            return error

    best = tried(first)
    low, high = 0, len(cuts) if isinstance(best, RequestError) else 0
    while low < high:
        middle = (low + high) // 2
        result = tried(cuts[middle])
        if isinstance(result, RequestError):
            low = middle + 1
        else:
            best, high = result, middle
    if isinstance(best, RequestError):
        raise best
    return best
