"""The tools of a response: functions, alone or in namespaces, and what is not offered here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from jackfield.errors import RequestError
from jackfield.server.chat_request import MAX_TOOLS, ToolName
from jackfield.server.request_fields import StrictModel

OTHER_TOOLS = (
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use_preview",
    "custom",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
)
"""OpenAI's types of tools that a chat does not have."""

MAX_NAME = 128


class FunctionTool(StrictModel):
    """A function that the model may call."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    output_schema: dict[str, Any] | None = None
    # Not told in answers, where it may not be null.
    defer_loading: Literal[False] | None = Field(None, exclude=True)
    allowed_callers: list[Literal["direct"]] | None = None


class NamespaceTool(StrictModel):
    """Functions under a name, such as those of one MCP server."""

    type: Literal["namespace"]
    name: ToolName
    description: str | None = None
    tools: Annotated[list[FunctionTool], Field(min_length=1, max_length=MAX_TOOLS)]


def without_others(tools: Any) -> Any:
    """Functions without the ``OTHER_TOOLS`` beside them: agents offer these to every server, and
    can do without. Where there is no function, the others are what the request is about."""
    if not isinstance(tools, list):
        return tools
    kept = [each for tool in tools for each in _offered(tool)]
    return kept or tools


def _offered(tool: Any) -> list[Any]:
    """The tool as far as it is offered, if it is; what is wrong in itself is left to be refused."""
    if type(tool) is not dict:
        return [tool]
    kind, inner = tool.get("type"), tool.get("tools")
    if kind != "namespace" or not isinstance(inner, list):
        return [] if kind in OTHER_TOOLS else [tool]
    offered = [each for each in inner if not _is_other(each)]
    return [{**tool, "tools": offered}] if offered else []


def _is_other(tool: Any) -> bool:
    """Whether what stands in a namespace is no function, or would have to be searched for."""
    is_tool = type(tool) is dict
    return is_tool and (tool.get("type") in OTHER_TOOLS or tool.get("defer_loading") is True)


def _tag(tool: Any) -> str:
    is_namespace = isinstance(tool, dict) and tool.get("type") == "namespace"
    # No identifiers, so that a path to a field does not have them.
    return "a namespace" if is_namespace else "a function"


Tools = Annotated[
    list[
        Annotated[
            Annotated[FunctionTool, Tag("a function")]
            | Annotated[NamespaceTool, Tag("a namespace")],
            Discriminator(_tag),
        ]
    ],
    Field(max_length=MAX_TOOLS),
    BeforeValidator(without_others),
]


def name_for_model(namespace: str, name: str) -> str:
    """What the model calls a function of a namespace: chats have none."""
    return namespace + ("" if namespace.endswith("__") else "__") + name


def namespaces(tools: Sequence[FunctionTool | NamespaceTool]) -> dict[str, tuple[str, str]]:
    """The namespace and the name behind each of the model's names that has both."""
    return {
        name_for_model(tool.name, function.name): (tool.name, function.name)
        for tool in tools
        if isinstance(tool, NamespaceTool)
        for function in tool.tools
    }


def functions(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Checked tools as functions by the model's names, as the client wrote them otherwise; raises
    ``RequestError`` where two would have one name."""
    found: list[Mapping[str, Any]] = []
    has_namespaces = False
    for tool in without_others(tools):
        if tool["type"] == "function":
            found.append(tool)
            continue
        has_namespaces = True
        found += (
            {**each, "name": name_for_model(tool["name"], each["name"])} for each in tool["tools"]
        )
    if has_namespaces:
        _check_names([each["name"] for each in found])
    return found


def _check_names(names: Sequence[str]) -> None:
    (name, count), *_ = Counter(names).most_common(1)
    if count > 1:
        raise RequestError(
            f"'tools' has {count} functions that the model would call {name}", param="tools"
        )
    longest = max(names, key=len)
    if len(longest) > MAX_NAME:
        raise RequestError(
            f"'tools': {longest} is longer than {MAX_NAME} characters, namespace and name together",
            param="tools",
        )
