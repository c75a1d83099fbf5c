"""The bodies of ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from jackfield.server.chat_request import MAX_TOOLS, ToolName
from jackfield.server.request_fields import MAX_STOPS, SamplingFields, StopString, StrictModel
from jackfield.server.spellings import REFUSED as REFUSED_BY_CHAT
from jackfield.server.spellings import Refusal

REFUSED: Mapping[str, Refusal] = {
    **REFUSED_BY_CHAT,
    "billing_policy": Refusal("nothing is billed by this server"),
    "compaction": Refusal("the context is not compacted here"),
    "container": Refusal("code is not run by this server"),
    "diagnostics": Refusal("cache diagnostics are not offered by this server"),
    "fallback_credit_token": Refusal("nothing is billed by this server"),
    "fallbacks": Refusal("requests are not passed on to other models", ([],)),
    "mcp_servers": Refusal("MCP servers are not called by this server"),
    "speed": Refusal("there is one speed", ("standard",)),
    "thread": Refusal("conversations are not kept here; send all messages"),
}
"""Fields of Anthropic's request that this server cannot honour."""


class MessageTool(StrictModel):
    """A tool of the client. Anthropic's own ones have another ``type``, and are refused."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None
    input_examples: list[dict[str, Any]] | None = None
    eager_input_streaming: bool | None = None
    defer_loading: Literal[False] | None = None
    allowed_callers: list[Literal["direct"]] | None = None


class ToolChoice(StrictModel):
    """Whether and what the model must call."""

    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(StrictModel):
    """Whether the model thinks before it answers, and how much."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class ThinkingKept(StrictModel):
    """The thinking of how many of the assistant's latest messages is kept; ``all`` has no value."""

    type: Literal["all", "thinking_turns"]
    value: Annotated[int, Field(ge=1, lt=2**31)] = 1


def _spelled_out(keep: Any) -> Any:
    return {"type": "all"} if keep == "all" else keep


class ContextEdit(StrictModel):
    """What is taken out of the conversation before the model sees it."""

    type: Literal["clear_thinking_20251015"]
    keep: Annotated[ThinkingKept, BeforeValidator(_spelled_out)] = ThinkingKept(
        type="thinking_turns"
    )

    @property
    def num_kept(self) -> int | None:
        """Messages that keep their thinking; None: all."""
        return None if self.keep.type == "all" else self.keep.value


class ContextManagement(StrictModel):
    """Anthropic's context editing, of thinking alone."""

    edits: list[ContextEdit] = Field([], max_length=16)


class OutputConfig(StrictModel):
    """How hard the model tries, and what its text looks like."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: dict[str, Any] | None = None


class CountTokensRequest(SamplingFields):
    """A conversation as the model would see it; sampling parameters change nothing."""

    passed: ClassVar[tuple[str, ...]] = (*SamplingFields.model_fields, "chat_template_kwargs")
    """Fields that chat has under the same name."""

    model: str | None = None
    # Checked by ``conversation.py``, block by block.
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=16384)]
    system: str | list[dict[str, Any]] | None = None
    tools: Annotated[list[MessageTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    context_management: ContextManagement | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    # Accepted: caching is automatic here, and the rest is bookkeeping.
    cache_control: dict[str, Any] | None = None
    inference_geo: str | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None


class MessagesRequest(CountTokensRequest):
    """Anthropic's request, with the sampling parameters that chat has."""

    max_tokens: Annotated[int, Field(ge=1, lt=2**31)]
    stop_sequences: Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    metadata: dict[str, Any] | None = None
