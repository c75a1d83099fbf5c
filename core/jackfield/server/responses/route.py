"""``POST /v1/responses``: what was said before, the request as a chat, and the answer's shape."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from jackfield.contracts.generation import GenerationRequest
from jackfield.errors import RequestError
from jackfield.server.asgi import off_loop
from jackfield.server.chat_generation import ChatGeneration
from jackfield.server.chat_request import ChatRequest
from jackfield.server.door import Frontend, new_id
from jackfield.server.generation_route import Deliverable, Prepared, Preparer, answer_id
from jackfield.server.output_items import EventView
from jackfield.server.responses.answer import Keep, ResponseAnswer, ResponseFrames
from jackfield.server.responses.objects import RESPONSE_PREFIX, ResponseShape
from jackfield.server.responses.request import (
    MAX_ITEMS,
    REFUSED,
    InputTokensRequest,
    ResponsesRequest,
)
from jackfield.server.responses.stored import History, StoredResponses
from jackfield.server.responses.tools import namespaces
from jackfield.server.responses.translation import (
    SPELLING,
    chat_fields,
    conversation_of,
    given_items,
    places,
    truncated,
)
from jackfield.server.spellings import Spelling, respelled, settle_spellings
from jackfield.server.validation import validate

Messages = Sequence[dict[str, Any]]
T = TypeVar("T")

_CHAT_FIELDS = frozenset(ChatRequest.model_fields)
_COUNT_FIELDS = frozenset(InputTokensRequest.model_fields)


class Responses:
    """Prepares requests for responses."""

    def __init__(self, frontend: Frontend, stored: StoredResponses) -> None:
        self.frontend = frontend
        self.stored = stored
        self.generation = ChatGeneration(frontend)

    async def __call__(
        self, data: dict[str, Any], num_bytes: int, header_id: str | None
    ) -> Deliverable:
        """As ``Prepare`` has it; a conversation that goes on is fetched first."""
        turn = await self._turn(data)
        return await off_loop(num_bytes + turn.num_bytes, partial(turn.settled, data, header_id))

    async def count_tokens(self, data: dict[str, Any]) -> dict[str, object]:
        """OpenAI's ``response.input_tokens``: the prompt's length, had it been sent to
        ``/v1/responses``."""
        self.frontend.require_ready()
        turn = await self._turn(data)
        count = await asyncio.to_thread(turn.count_tokens, data)
        return {"object": "response.input_tokens", "input_tokens": count}

    async def _turn(self, data: dict[str, Any]) -> Turn:
        """What was said before is fetched, and items that ``data`` only refers to stand in it."""
        previous = data.get("previous_response_id")
        history = History()
        if isinstance(previous, str):
            history = await self.stored.history(previous)
        num_bytes = history.num_bytes
        given = data.get("input")
        if isinstance(given, list) and len(given) <= MAX_ITEMS:  # more is refused
            data["input"], more = await self.stored.with_items(given)
            num_bytes += more
        return Turn(self, history, num_bytes)


class Turn(Preparer):
    """One request, with what was said before it."""

    fields = frozenset(ResponsesRequest.model_fields)
    refused = REFUSED

    def __init__(self, route: Responses, history: History, num_bytes: int) -> None:
        """``num_bytes``: of the records that were read for it."""
        self._route = route
        self._history = history
        self.num_bytes = num_bytes

    def count_tokens(self, data: dict[str, Any]) -> int:
        """The length of the prompt: of as much as fits with ``truncation``, else of all of it."""
        spelling = settle_spellings(data, _COUNT_FIELDS, refused=self.refused)
        request = validate(InputTokensRequest, data)
        self._route.frontend.check_model(request.model)
        generation = self._route.generation
        if request.truncation == "auto":
            generate = partial(generation, request_id="count")
            return len(self._as_chat(request, data, spelling, generate).prompt_token_ids)
        return self._as_chat(request, data, spelling, generation.num_tokens)

    def prepare(self, data: dict[str, Any], header_id: str | None, spelling: Spelling) -> Prepared:
        """One prompt, one choice."""
        request = validate(ResponsesRequest, data)
        model = self._route.frontend.check_model(request.model)
        own_id = answer_id(RESPONSE_PREFIX, request.request_id, header_id)
        spelling = {**spelling, **SPELLING}
        generate = partial(self._route.generation, request_id=own_id)
        generation = self._as_chat(request, data, spelling, generate)
        base = self._base(request, model, generation)
        shape = ResponseShape(
            base=base,
            num_prompt_tokens=len(generation.prompt_token_ids),
            names=self._route.frontend.token_text(),
            num_top=generation.sampling.logprobs,
            namespaces=namespaces(request.tools or ()),
        )
        view = EventView(parse=generation.parse, single_call=request.parallel_tool_calls is False)
        reply = ResponseFrames if request.stream else ResponseAnswer
        return Prepared((generation,), reply(shape, view, self._keep(request, base)), spelling)

    def _as_chat(
        self,
        request: InputTokensRequest,
        data: Mapping[str, Any],
        spelling: Spelling,
        use: Callable[[ChatRequest, Mapping[str, Any]], T],
    ) -> T:
        """What ``use`` makes of the request as a chat; ``data`` is what the request was made of."""
        conversation = conversation_of(request, self._history)
        try:
            chat = chat_fields(request, data)
            settle_spellings(chat, _CHAT_FIELDS)
            attempt = partial(_used, use, chat)
            if request.truncation == "auto":
                return truncated(conversation.messages, attempt)
            return attempt(conversation.messages)
        except RequestError as error:
            raise respelled(error, {**spelling, **SPELLING, **places(conversation)}) from None

    def _keep(self, request: ResponsesRequest, base: Mapping[str, Any]) -> Keep:
        async def keep(response: dict[str, Any]) -> None:
            if base["store"]:
                await self._route.stored.keep(response, given_items(request))

        return keep

    def _base(
        self, request: ResponsesRequest, model: str, generation: GenerationRequest
    ) -> dict[str, Any]:
        """What the response says of its request; settings that it leaves open as they are used."""
        text, reasoning = request.text, request.reasoning
        return {
            # Never the client's own: it is the key by which the response is kept.
            "id": new_id(RESPONSE_PREFIX),
            "object": "response",
            "created_at": int(time.time()),
            "background": False,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": request.max_tool_calls,
            "metadata": request.metadata or {},
            "model": model,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "prompt_cache_key": request.prompt_cache_key,
            "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
            "safety_identifier": request.safety_identifier,
            "service_tier": "default",
            "store": request.store is not False and self._route.stored.keeps,
            "temperature": generation.sampling.temperature,
            "text": {"format": (text.format if text else None) or {"type": "text"}},
            "tool_choice": request.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in request.tools or ()],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": generation.sampling.top_p,
            "truncation": request.truncation or "disabled",
            "user": request.user,
        }


def _used(
    use: Callable[[ChatRequest, Mapping[str, Any]], T], chat: Mapping[str, Any], messages: Messages
) -> T:
    data = {**chat, "messages": [dict(message) for message in messages]}
    return use(validate(ChatRequest, data), data)
