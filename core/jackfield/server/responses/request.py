"""The bodies of ``POST /v1/responses`` and ``POST /v1/responses/input_tokens``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from jackfield.errors import RequestError
from jackfield.server.chat_request import ShortName
from jackfield.server.request_fields import SamplingFields, Stops, StrictModel
from jackfield.server.responses.tools import Tools
from jackfield.server.spellings import REFUSED as REFUSED_BY_CHAT
from jackfield.server.spellings import Refusal

MAX_ITEMS = 16384

Items = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_ITEMS)]

REFUSED: Mapping[str, Refusal] = {
    **REFUSED_BY_CHAT,
    "access_programs": Refusal("access programs are not offered by this server"),
    "background_options": Refusal("responses are generated while the client waits"),
    "context_management": Refusal("the context is not compacted here; see 'truncation'", ([],)),
    "conversation": Refusal("conversations are not kept; use 'previous_response_id'"),
    "enable_response_messages": Refusal("tokens are not shown here; see /tokenize", (False,)),
    "image": Refusal("only text output is supported"),
    "personality": Refusal("the model has no personalities; send 'instructions'"),
    "prompt": Refusal("prompt templates are not kept here; send 'instructions' and 'input'"),
}
"""Fields of OpenAI's request that this server cannot honour."""

Include = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]
"""What OpenAI can add to an answer. Only the log-probabilities exist here: the others belong to
tools that this server does not have, or hide the thinking that it gives in clear."""


class ReasoningFields(StrictModel):
    """How the model thinks. Summaries are not made: the thinking itself is in the answer."""

    effort: ShortName | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "all_turns"] | None = None
    mode: Literal["standard"] | None = None


class TextFields(StrictModel):
    """What the text of the answer looks like; ``format`` is chat's ``response_format``, flat."""

    format: dict[str, Any] | None = None
    verbosity: ShortName | None = None


class StreamFields(StrictModel):
    """Obfuscation hides the length of tokens by padding events; there is none here."""

    include_obfuscation: Literal[False] | None = None


class InputTokensRequest(SamplingFields):
    """What of a request the prompt is made of; sampling parameters change nothing."""

    passed: ClassVar[tuple[str, ...]] = (
        *SamplingFields.model_fields,
        "chat_template_kwargs",
        "parallel_tool_calls",
        "stop",
        "thinking_token_budget",
    )
    """Fields that chat has under the same name."""

    model: str | None = None
    # Checked by ``conversation.py``, item by item.
    input: str | Items | None = None
    instructions: str | None = None
    previous_response_id: Annotated[str, StringConstraints(max_length=128)] | None = None
    tools: Tools | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningFields | None = None
    text: TextFields | None = None
    truncation: Literal["auto", "disabled"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class ResponsesRequest(InputTokensRequest):
    """OpenAI's request to create a response, with the sampling parameters that chat has."""

    input: str | Items
    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    include: Annotated[list[Include], Field(max_length=16)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: StreamFields | None = None
    # Accepted: what OpenAI's agents tell it of themselves.
    client_metadata: dict[str, Any] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, StringConstraints(max_length=64)],
                Annotated[str, StringConstraints(max_length=512)],
            ],
            Field(max_length=16),
        ]
        | None
    ) = None
    stop: Stops | None = None
    thinking_token_budget: int | None = None

    @model_validator(mode="after")
    def _check_offered(self) -> ResponsesRequest:
        if self.background:
            raise RequestError(
                "'background' cannot be used: responses are generated while the client waits",
                param="background",
                code="unsupported_parameter",
            )
        if self.stream_options is not None and not self.stream:
            raise RequestError("'stream_options' needs 'stream': true", param="stream_options")
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Whether the text comes with log-probabilities."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())
