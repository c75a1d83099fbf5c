"""``POST /v1/chat/completions``: from the request's JSON to a prompt and the answer's shape."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from jackfield.contracts.generation import GenerationRequest
from jackfield.server.chat_answer import ChatAnswer, ChatFrames, ChatShape
from jackfield.server.chat_generation import ChatGeneration
from jackfield.server.chat_request import ChatRequest
from jackfield.server.door import Frontend
from jackfield.server.generation_route import Prepared, Preparer, answer_id
from jackfield.server.options import ServerOptions
from jackfield.server.output_items import EventView
from jackfield.server.request_fields import check_bookkeeping, stream_options
from jackfield.server.spellings import Spelling
from jackfield.server.validation import validate


class Chat(Preparer):
    """Prepares chat requests."""

    fields = frozenset(ChatRequest.model_fields)

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._generation = ChatGeneration(frontend)

    def prepare(self, data: dict[str, Any], header_id: str | None, spelling: Spelling) -> Prepared:
        """One prompt, ``n`` choices."""
        request = validate(ChatRequest, data)
        check_bookkeeping(request)
        model = self._frontend.check_model(request.model)
        request_id = answer_id("chatcmpl-", request.request_id, header_id)
        generation = self._generation(request, data, request_id)
        shape = self._shape(request, model, generation)
        # What is called logprobs from here on is the number of alternatives.
        later = {**spelling, "logprobs": "top_logprobs"}
        return Prepared((generation,), _reply(request, shape, self._frontend.options), later)

    def _shape(self, request: ChatRequest, model: str, generation: GenerationRequest) -> ChatShape:
        frontend, options = self._frontend, self._frontend.options
        adds = request.add_generation_prompt
        return ChatShape(
            id=generation.request_id,
            created=int(time.time()),
            model=model,
            role=options.response_role if adds is not False else _last_role(request.messages),
            prompt=generation.prompt_token_ids,
            n=generation.sampling.n,
            names=frontend.token_text(request.return_tokens_as_token_ids),
            view=EventView(
                parse=generation.parse,
                hide_reasoning=request.include_reasoning is False,
                single_call=request.parallel_tool_calls is False,
            ),
            has_reasoning=frontend.llm.plan.reasoning_parser is not None,
            num_top=generation.sampling.logprobs,
            prompt_logprobs=request.prompt_logprobs is not None,
            token_ids=bool(request.return_token_ids),
            usage_details=options.enable_prompt_tokens_details,
        )


def _last_role(messages: Sequence[Mapping[str, Any]]) -> str:
    role: str = messages[-1]["role"]
    return role


def _reply(
    request: ChatRequest, shape: ChatShape, options: ServerOptions
) -> ChatAnswer | ChatFrames:
    if not request.stream:
        return ChatAnswer(shape)
    return ChatFrames(
        shape, stream_options(request.stream_options, options.enable_force_include_usage)
    )
