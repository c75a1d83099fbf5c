"""A checked chat request to the one request that generates its choices; the prompt of every route
that takes a conversation is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jackfield.contracts.generation import GenerationRequest
from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import RequestError
from jackfield.server.chat_request import ChatRequest, check_messages
from jackfield.server.door import Frontend
from jackfield.server.sampling import fitted, sampling_params

if TYPE_CHECKING:
    from jackfield.text.prompt import RenderedPrompt

Tools = Sequence[Mapping[str, object]]


class ChatGeneration:
    """Checks what the request alone does not say, and renders and encodes the prompt."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        plan = frontend.llm.plan
        self._has_reasoning = plan.reasoning_parser is not None
        self._has_tools = plan.tool_parser is not None

    def __call__(
        self, request: ChatRequest, data: Mapping[str, Any], request_id: str
    ) -> GenerationRequest:
        """``data`` is what ``request`` was made of: templates see tools as the client wrote them.
        Raises ``RequestError``."""
        self._frontend.require_tokenizer()
        check_messages(request.messages)
        tools = self._tools(request, data)
        sampling = self._sampling(request)
        kwargs = template_kwargs(request)
        rendered = self._render(request, tools, kwargs)
        room = self._frontend.llm.max_model_len - len(rendered.token_ids)
        return GenerationRequest(
            request_id=request_id,
            prompt_token_ids=rendered.token_ids,
            sampling=fitted(sampling, request, room),
            prompt_text=rendered.text,
            parse=self._has_reasoning or bool(tools),
            tools=tools,
            template_kwargs=kwargs,
            priority=request.priority or 0,
            cache_salt=request.cache_salt,
        )

    def _tools(self, request: ChatRequest, data: Mapping[str, Any]) -> Tools:
        """The tools that the model sees and may call, as the client wrote them."""
        choice = request.tool_choice
        if choice is None:
            choice = "auto" if request.tools else "none"
        if choice not in ("auto", "none"):
            raise RequestError(
                "'tool_choice' other than 'auto' and 'none' is not built yet",
                param="tool_choice",
                code="unsupported_parameter",
            )
        if choice == "none":
            return ()
        if not request.tools:
            if request.tool_choice is not None:
                raise RequestError("'tool_choice' needs 'tools'", param="tool_choice")
            return ()
        if not self._has_tools:
            raise RequestError(
                "'auto' tool choice needs a tool parser: start the server with "
                "--tool-call-parser, or send 'tool_choice': 'none'",
                param="tool_choice",
            )
        tools: Tools = data["tools"]
        return tools

    def _sampling(self, request: ChatRequest) -> SamplingParams:
        n = request.n or 1
        limit = self._frontend.options.max_choices
        if n > limit:
            raise RequestError(f"n ({n}) is above the limit of {limit}", param="n")
        if request.stream and request.prompt_logprobs is not None:
            raise RequestError("'prompt_logprobs' cannot be streamed", param="prompt_logprobs")
        return sampling_params(
            request,
            self._frontend.llm.plan.generation_defaults,
            default_max_tokens=None,
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        )

    def _render(
        self, request: ChatRequest, tools: Tools, kwargs: Mapping[str, object]
    ) -> RenderedPrompt:
        continues = bool(request.continue_final_message)
        adds = request.add_generation_prompt
        return self._frontend.llm.prompts.from_chat(
            request.messages,
            tools=tools,
            documents=request.documents,
            add_generation_prompt=not continues if adds is None else adds,
            continue_final_message=continues,
            add_special_tokens=bool(request.add_special_tokens),
            template_kwargs=kwargs,
            truncate_prompt_tokens=request.truncate_prompt_tokens,
        )


def template_kwargs(request: ChatRequest) -> dict[str, object]:
    """What the template gets beside the messages; ``reasoning_effort`` is one of them."""
    kwargs: dict[str, object] = dict(request.chat_template_kwargs or {})
    if request.reasoning_effort is not None:
        kwargs.setdefault("reasoning_effort", request.reasoning_effort)
    return kwargs
