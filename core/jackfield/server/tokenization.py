"""``POST /tokenize`` and ``POST /detokenize``, in vLLM's shapes."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field

from jackfield.errors import RequestError
from jackfield.server.chat_request import MAX_TOOLS, Tool, check_messages
from jackfield.server.door import Frontend
from jackfield.server.request_fields import StrictModel
from jackfield.server.spellings import settle_spellings
from jackfield.server.token_text import TokenText
from jackfield.server.validation import validate
from jackfield.text.prompt import CHARACTERS_PER_TOKEN

TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=1 << 20)]


class TokenizeRequest(StrictModel):
    """A text, or a chat as the model would see it."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None


class DetokenizeRequest(StrictModel):
    """Ids to turn into a text."""

    model: str | None = None
    tokens: TokenIds


class Tokenization:
    """Both directions; neither touches the engine."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend

    async def tokenize(self, data: dict[str, Any]) -> dict[str, object]:
        """``{"count", "max_model_len", "tokens", "token_strs"}``."""
        self._frontend.require_ready()
        return await asyncio.to_thread(self._tokenize, data)

    async def detokenize(self, data: dict[str, Any]) -> dict[str, object]:
        """``{"prompt"}``."""
        self._frontend.require_ready()
        return await asyncio.to_thread(self._detokenize, data)

    def _tokenize(self, data: dict[str, Any]) -> dict[str, object]:
        settle_spellings(data, TokenizeRequest.model_fields.keys())
        request = validate(TokenizeRequest, data)
        self._frontend.check_model(request.model)
        if (request.prompt is None) == (request.messages is None):
            raise RequestError("Send either 'prompt' or 'messages'", param="prompt")
        ids = self._ids(request, data)
        strings = None
        if request.return_token_strs:
            names = TokenText(self._frontend.require_tokenizer(), as_ids=False)
            strings = [names.text(token_id) for token_id in ids]
        return {
            "count": len(ids),
            "max_model_len": self._frontend.llm.max_model_len,
            "tokens": ids,
            "token_strs": strings,
        }

    def _detokenize(self, data: dict[str, Any]) -> dict[str, object]:
        settle_spellings(data, DetokenizeRequest.model_fields.keys())
        request = validate(DetokenizeRequest, data)
        self._frontend.check_model(request.model)
        tokenizer = self._frontend.require_tokenizer()
        if any(token >= tokenizer.vocab_size for token in request.tokens):
            raise RequestError(
                f"'tokens' must be below the vocabulary's size {tokenizer.vocab_size}",
                param="tokens",
            )
        return {"prompt": tokenizer.decode(request.tokens)}

    def _ids(self, request: TokenizeRequest, data: dict[str, Any]) -> list[int]:
        tokenizer = self._frontend.require_tokenizer()
        special = request.add_special_tokens
        if request.prompt is not None:
            most = CHARACTERS_PER_TOKEN * self._frontend.llm.max_model_len
            if len(request.prompt) > most:
                raise RequestError(f"'prompt' is longer than {most} characters", param="prompt")
            return tokenizer.encode(
                request.prompt, add_special_tokens=True if special is None else special
            )
        assert request.messages is not None, "checked by the caller"
        check_messages(request.messages)
        adds, continues = request.add_generation_prompt, bool(request.continue_final_message)
        rendered = self._frontend.llm.prompts.counting().from_chat(
            request.messages,
            tools=data.get("tools") or (),
            add_generation_prompt=not continues if adds is None else adds,
            continue_final_message=continues,
            add_special_tokens=bool(special),
            template_kwargs=request.chat_template_kwargs or {},
        )
        return list(rendered.token_ids)
