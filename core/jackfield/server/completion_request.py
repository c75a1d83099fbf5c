"""The body of ``POST /v1/completions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema, model_validator

from jackfield.errors import RequestError
from jackfield.server.request_fields import RequestFields

_TOKENS = {"type": "array", "items": {"type": "integer"}}
_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        _TOKENS,
        {"type": "array", "items": {"anyOf": [{"type": "string"}, _TOKENS]}},
    ]
}


class CompletionRequest(RequestFields):
    """OpenAI's completion request with vLLM's extra parameters."""

    # Checked by ``split_prompts``: a union would try every branch on every token id.
    prompt: Annotated[Any, WithJsonSchema(_PROMPT_SCHEMA)]
    best_of: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @model_validator(mode="after")
    def _check_best_of(self) -> CompletionRequest:
        if self.best_of is None:
            return self
        if self.best_of < (self.n or 1):
            raise RequestError(
                f"'best_of' ({self.best_of}) must be at least 'n' ({self.n or 1})", param="best_of"
            )
        if self.stream and self.best_of > (self.n or 1):
            raise RequestError(
                "'best_of' above 'n' cannot be streamed: the best are known at the end",
                param="best_of",
            )
        return self

    @property
    def num_generated(self) -> int:
        """Choices that are generated for each prompt; the ``n`` best of them are answered."""
        return self.best_of or self.n or 1


def split_prompts(prompt: object) -> list[str | list[int]]:
    """The prompts of a request: one text, one list of ids, or a list of such."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise RequestError(
            "'prompt' must be a text, a list of token ids, or a non-empty list of such",
            param="prompt",
        )
    if set(map(type, prompt)) == {int}:
        return [prompt]
    for index, one in enumerate(prompt):
        _check_prompt(one, index)
    return prompt


def _check_prompt(prompt: object, index: int) -> None:
    if isinstance(prompt, str):
        return
    if isinstance(prompt, list) and prompt and set(map(type, prompt)) == {int}:
        return
    raise RequestError(
        f"'prompt[{index}]' must be a text or a non-empty list of token ids",
        param=f"prompt[{index}]",
    )


def truncated(ids: Sequence[int], limit: int | None, max_model_len: int) -> Sequence[int]:
    """The last ``limit`` ids; -1 means as many as the context holds beside one new token."""
    if limit is None:
        return ids
    keep = max_model_len - 1 if limit == -1 else limit
    if keep < 1:
        raise RequestError(
            "'truncate_prompt_tokens' must be -1 or at least 1", param="truncate_prompt_tokens"
        )
    return ids[-keep:]
