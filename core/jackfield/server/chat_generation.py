"""A checked chat request to the one request that generates its choices; the prompt of every route
that takes a conversation is made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from jackfield.contracts.generation import GenerationRequest
from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import RequestError
from jackfield.server.chat_request import ChatRequest, check_messages
from jackfield.server.door import Frontend
from jackfield.server.sampling import fitted, sampling_params
from jackfield.server.structured import with_calls
from jackfield.server.tool_choice import ToolChoice, Tools, tool_choice

if TYPE_CHECKING:
    from jackfield.text.prompt import PromptBuilder, RenderedPrompt


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
        choice = self._checked(request, data)
        tools = choice.tools
        sampling = self._held_to_calls(self._sampling(request), request, choice)
        kwargs = template_kwargs(request)
        rendered = _rendered(self._frontend.llm.prompts, request, tools, kwargs)
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
            user=request.user,
        )

    def num_tokens(self, request: ChatRequest, data: Mapping[str, Any]) -> int:
        """The length of the prompt, which may be more than the context; raises as the call does."""
        tools = self._checked(request, data).tools
        prompts = self._frontend.llm.prompts.counting()
        return len(_rendered(prompts, request, tools, template_kwargs(request)).token_ids)

    def _checked(self, request: ChatRequest, data: Mapping[str, Any]) -> ToolChoice:
        """The tools and which to call, once it is known that there can be a prompt."""
        self._frontend.require_tokenizer()
        check_messages(request.messages)
        choice = tool_choice(request, data)
        if choice.kind != "none" and not self._has_tools:
            raise RequestError(
                f"{choice.kind!r} tool choice needs a tool parser: start the server with "
                "--tool-call-parser, or send 'tool_choice': 'none'",
                param="tool_choice",
            )
        return choice

    def _held_to_calls(
        self, sampling: SamplingParams, request: ChatRequest, choice: ToolChoice
    ) -> SamplingParams:
        """With calls held to the parser's format and the tools' schemas, and forced if chosen."""
        if choice.kind == "none":
            return sampling
        tools = choice.callable_tools
        parallel = request.parallel_tool_calls is not False and choice.kind != "named"
        structure = self._frontend.llm.tool_structure
        wanted = sampling.structured_outputs
        if choice.kind == "auto":
            calls = structure(tools, "auto", parallel=parallel)
            required = None if wanted is None else structure(tools, "required", parallel=parallel)
            is_strict = any(tool.function.strict for tool in request.tools or ())
            held = with_calls(wanted, calls, required, best_effort=not is_strict)
        else:
            calls = structure(tools, "required", parallel=parallel)
            if calls is None:
                raise RequestError(
                    "this server's tool parser cannot force calls; send 'tool_choice': 'auto'",
                    param="tool_choice",
                )
            held = with_calls(None, calls, None)
        return msgspec.structs.replace(sampling, structured_outputs=held)

    def _sampling(self, request: ChatRequest) -> SamplingParams:
        n = request.n or 1
        limit = self._frontend.options.max_choices
        if n > limit:
            raise RequestError(f"n ({n}) is above the limit of {limit}", param="n")
        return sampling_params(
            request,
            self._frontend.llm.plan.generation_defaults,
            default_max_tokens=None,
            processor_pattern=self._frontend.options.logits_processor_pattern,
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        )


def _rendered(
    prompts: PromptBuilder, request: ChatRequest, tools: Tools, kwargs: Mapping[str, object]
) -> RenderedPrompt:
    continues = bool(request.continue_final_message)
    adds = request.add_generation_prompt
    return prompts.from_chat(
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
    """What the template gets beside the messages; ``reasoning_effort`` is one of them, and no
    effort turns off what a template may have to turn off."""
    kwargs: dict[str, object] = dict(request.chat_template_kwargs or {})
    if request.reasoning_effort is not None:
        kwargs.setdefault("reasoning_effort", request.reasoning_effort)
    if request.reasoning_effort == "none":
        kwargs.setdefault("enable_thinking", False)
        kwargs.setdefault("thinking", False)
    return kwargs
