"""``POST /v1/chat/completions``: from the request's JSON to a prompt and the answer's shape."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jackfield.contracts.generation import GenerationRequest
from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import RequestError
from jackfield.server.chat_answer import ChatAnswer, ChatFrames, ChatShape
from jackfield.server.chat_request import ChatRequest, check_messages
from jackfield.server.door import Frontend, new_id
from jackfield.server.generation_route import Prepared
from jackfield.server.request_fields import check_stream_options, settle_best_of
from jackfield.server.sampling import fitted, sampling_params
from jackfield.server.spellings import respelled, settle_spellings
from jackfield.server.token_text import TokenText
from jackfield.server.validation import validate

if TYPE_CHECKING:
    from jackfield.text.prompt import RenderedPrompt

Tools = Sequence[Mapping[str, object]]

_KNOWN = frozenset(ChatRequest.model_fields)


class Chat:
    """Prepares chat requests."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        plan = frontend.llm.plan
        self._has_reasoning = plan.reasoning_parser is not None
        self._has_tools = plan.tool_parser is not None

    def __call__(self, data: dict[str, Any], header_id: str | None) -> Prepared:
        """Checks everything that can be known in front; raises ``RequestError``."""
        settle_best_of(data)
        spelling = settle_spellings(data, _KNOWN)
        try:
            return self._prepare(data, header_id, spelling)
        except RequestError as error:
            raise respelled(error, spelling) from None

    def _prepare(
        self, data: dict[str, Any], header_id: str | None, spelling: Mapping[str, str]
    ) -> Prepared:
        request = validate(ChatRequest, data)
        check_stream_options(request)
        model = self._frontend.check_model(request.model)
        self._frontend.require_tokenizer()
        check_messages(request.messages)
        tools = self._tools(request, data)
        sampling = self._sampling(request)
        kwargs = template_kwargs(request)
        rendered = self._render(request, tools, kwargs)
        room = self._frontend.llm.max_model_len - len(rendered.token_ids)
        request_id = new_id("chatcmpl-") if header_id is None else f"chatcmpl-{header_id}"
        if request.request_id is not None:
            request_id = f"chatcmpl-{request.request_id}"
        parse = self._has_reasoning or bool(tools)
        shape = self._shape(request, request_id, model, rendered.token_ids, parse)
        generation = GenerationRequest(
            request_id=request_id,
            prompt_token_ids=rendered.token_ids,
            sampling=fitted(sampling, request, room),
            prompt_text=rendered.text,
            parse=parse,
            tools=tools,
            template_kwargs=kwargs,
            priority=request.priority or 0,
            cache_salt=request.cache_salt,
        )
        # What is called logprobs from here on is the number of alternatives.
        later = {**spelling, "logprobs": "top_logprobs"}
        return Prepared((generation,), _reply(request, shape), later)

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

    def _shape(
        self,
        request: ChatRequest,
        request_id: str,
        model: str,
        prompt: tuple[int, ...],
        parse: bool,
    ) -> ChatShape:
        options = self._frontend.options
        as_ids = request.return_tokens_as_token_ids
        adds = request.add_generation_prompt
        return ChatShape(
            id=request_id,
            created=int(time.time()),
            model=model,
            role=options.response_role if adds is not False else _last_role(request.messages),
            prompt=prompt,
            n=request.n or 1,
            names=TokenText(
                self._frontend.llm.tokenizer,
                options.return_tokens_as_token_ids if as_ids is None else as_ids,
            ),
            parse=parse,
            has_reasoning=self._has_reasoning,
            hide_reasoning=request.include_reasoning is False,
            single_call=request.parallel_tool_calls is False,
            num_top=(request.top_logprobs or 0) if request.logprobs else None,
            prompt_logprobs=request.prompt_logprobs is not None,
            token_ids=bool(request.return_token_ids),
            usage_details=options.enable_prompt_tokens_details,
        )


def template_kwargs(request: ChatRequest) -> dict[str, object]:
    """What the template gets beside the messages; ``reasoning_effort`` is one of them."""
    kwargs: dict[str, object] = dict(request.chat_template_kwargs or {})
    if request.reasoning_effort is not None:
        kwargs.setdefault("reasoning_effort", request.reasoning_effort)
    return kwargs


def _last_role(messages: Sequence[Mapping[str, Any]]) -> str:
    role: str = messages[-1]["role"]
    return role


def _reply(request: ChatRequest, shape: ChatShape) -> ChatAnswer | ChatFrames:
    if not request.stream:
        return ChatAnswer(shape)
    options = request.stream_options
    return ChatFrames(
        shape,
        include_usage=bool(options and options.include_usage),
        continuous=bool(options and options.continuous_usage_stats),
    )
