"""``POST /v1/messages`` and its ``count_tokens``: the request as a chat, and the answer's shape."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec

from jackfield.contracts.generation import GenerationRequest
from jackfield.errors import RequestError
from jackfield.server.chat_generation import ChatGeneration
from jackfield.server.chat_request import ChatRequest
from jackfield.server.door import Frontend
from jackfield.server.generation_route import Prepared, Preparer, answer_id
from jackfield.server.messages.answer import MessageAnswer, MessageFrames, MessageShape
from jackfield.server.messages.request import REFUSED, CountTokensRequest, MessagesRequest
from jackfield.server.messages.translation import (
    SPELLING,
    chat_fields,
    conversation_of,
    places,
)
from jackfield.server.output_items import EventView
from jackfield.server.spellings import Spelling, respelled, settle_spellings
from jackfield.server.validation import validate

T = TypeVar("T")

_CHAT_FIELDS = frozenset(ChatRequest.model_fields)
_COUNT_FIELDS = frozenset(CountTokensRequest.model_fields)


class Messages(Preparer):
    """Prepares requests for messages."""

    fields = frozenset(MessagesRequest.model_fields)
    refused = REFUSED

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._generation = ChatGeneration(frontend)

    def prepare(self, data: dict[str, Any], header_id: str | None, spelling: Spelling) -> Prepared:
        """One prompt, one choice."""
        request = validate(MessagesRequest, data)
        model = self._frontend.check_model(request.model)
        request_id = answer_id("msg_", request.request_id, header_id)
        generation = self._as_chat(request, data, partial(self._generation, request_id=request_id))
        room = self._frontend.llm.max_model_len - len(generation.prompt_token_ids)
        shape = MessageShape(
            id=request_id,
            model=model,
            num_prompt_tokens=len(generation.prompt_token_ids),
            usage_details=self._frontend.options.enable_prompt_tokens_details,
            ends_with_context=request.max_tokens > room,
        )
        reply = MessageFrames if request.stream else MessageAnswer
        return Prepared(
            (_within(generation, room),),
            reply(shape, _view(request, generation)),
            {**spelling, **SPELLING},
        )

    async def count_tokens(self, data: dict[str, Any]) -> dict[str, object]:
        """``{"input_tokens"}``: the prompt's length, had it been sent to ``/v1/messages``."""
        self._frontend.require_ready()
        return {"input_tokens": await asyncio.to_thread(self._num_tokens, data)}

    def _num_tokens(self, data: dict[str, Any]) -> int:
        settle_spellings(data, _COUNT_FIELDS, refused=REFUSED)
        request = validate(CountTokensRequest, data)
        self._frontend.check_model(request.model)
        return self._as_chat(request, data, self._generation.num_tokens)

    def _as_chat(
        self,
        request: CountTokensRequest,
        data: Mapping[str, Any],
        use: Callable[[ChatRequest, Mapping[str, Any]], T],
    ) -> T:
        """What ``use`` makes of the request as a chat; its errors name the fields sent."""
        conversation = conversation_of(request)
        try:
            chat = chat_fields(
                request,
                data,
                conversation,
                knows_thinking=self._frontend.llm.plan.reasoning_parser is not None,
            )
            settle_spellings(chat, _CHAT_FIELDS)
            return use(validate(ChatRequest, chat), chat)
        except RequestError as error:
            if error.code == "context_length_exceeded":
                # The words by which Anthropic's clients know that they have to compact.
                error.message = f"prompt is too long: {error.message}"
            raise respelled(error, {**SPELLING, **places(conversation)}) from None


def _within(generation: GenerationRequest, room: int) -> GenerationRequest:
    """As Anthropic has it, ``max_tokens`` may be more than the context has room for."""
    sampling = generation.sampling
    if sampling.max_tokens is None or sampling.max_tokens <= room:
        return generation
    return dataclasses.replace(
        generation, sampling=msgspec.structs.replace(sampling, max_tokens=room)
    )


def _view(request: MessagesRequest, generation: GenerationRequest) -> EventView:
    thinking, choice = request.thinking, request.tool_choice
    return EventView(
        parse=generation.parse,
        hide_reasoning=thinking is not None
        and (thinking.type == "disabled" or thinking.display == "omitted"),
        single_call=choice is not None and bool(choice.disable_parallel_tool_use),
    )
