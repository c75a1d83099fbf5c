"""The body of ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema, model_validator

from jackfield.errors import RequestError
from jackfield.server.inputs import inputs_schema
from jackfield.server.request_fields import RequestFields


class CompletionRequest(RequestFields):
    """OpenAI's completion request with vLLM's extra parameters."""

    # Checked by ``split_inputs``.
    prompt: Annotated[Any, WithJsonSchema(inputs_schema())]
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
