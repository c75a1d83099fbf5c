"""``POST /v1/completions``: from the request's JSON to prompts and the shape of the answer."""

from __future__ import annotations

import time
from typing import Any

from jackfield.contracts.generation import GenerationRequest
from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import RequestError
from jackfield.server.completion_answer import (
    CompletionAnswer,
    CompletionFrames,
    CompletionShape,
)
from jackfield.server.completion_request import CompletionRequest
from jackfield.server.door import Frontend
from jackfield.server.generation_route import Prepared, Preparer, answer_id
from jackfield.server.inputs import Encoded, encode_input, split_inputs
from jackfield.server.options import ServerOptions
from jackfield.server.request_fields import check_bookkeeping, stream_options
from jackfield.server.sampling import fitted, sampling_params
from jackfield.server.spellings import Spelling
from jackfield.server.validation import validate

DEFAULT_MAX_TOKENS = 16


class Completions(Preparer):
    """Prepares completion requests."""

    fields = frozenset(CompletionRequest.model_fields)

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend

    def prepare(self, data: dict[str, Any], header_id: str | None, spelling: Spelling) -> Prepared:
        """One prompt or several, each with ``n`` choices."""
        request = validate(CompletionRequest, data)
        check_bookkeeping(request)
        model = self._frontend.check_model(request.model)
        prompts = split_inputs(request.prompt, "prompt")
        self._check_num_choices(request.num_generated, len(prompts))
        sampling = self._sampling(request)
        encoded = [encode_input(self._frontend, one, "prompt", request) for one in prompts]
        request_id = answer_id("cmpl-", request.request_id, header_id)
        shape = self._shape(request, request_id, model, encoded)
        max_model_len = self._frontend.llm.max_model_len
        requests = [
            GenerationRequest(
                request_id=request_id if len(encoded) == 1 else f"{request_id}-{index}",
                prompt_token_ids=ids,
                sampling=fitted(sampling, request, max_model_len - len(ids)),
                prompt_text=text,
                priority=request.priority or 0,
                cache_salt=request.cache_salt,
                user=request.user,
            )
            for index, (text, ids) in enumerate(encoded)
        ]
        return Prepared(requests, _reply(request, shape, self._frontend.options), spelling)

    def _check_num_choices(self, n: int, num_prompts: int) -> None:
        limit = self._frontend.options.max_choices
        if n * num_prompts > limit:
            raise RequestError(
                f"n or best_of x prompts ({n} x {num_prompts}) is above the limit of {limit}",
                param="n" if num_prompts == 1 else "prompt",
            )

    def _sampling(self, request: CompletionRequest) -> SamplingParams:
        overrides: dict[str, Any] = {"logprobs": request.logprobs}
        if request.num_generated > (request.n or 1):
            overrides |= {"n": request.num_generated, "logprobs": request.logprobs or 0}
        if request.max_tokens == 0 and request.echo:
            overrides["max_tokens"] = 1
        if request.prompt_logprobs is None and request.echo:
            overrides["prompt_logprobs"] = request.logprobs
        return sampling_params(
            request,
            self._frontend.llm.plan.generation_defaults,
            default_max_tokens=DEFAULT_MAX_TOKENS,
            processor_pattern=self._frontend.options.logits_processor_pattern,
            **overrides,
        )

    def _shape(
        self,
        request: CompletionRequest,
        request_id: str,
        model: str,
        encoded: list[Encoded],
    ) -> CompletionShape:
        options = self._frontend.options
        echoes = None
        if request.echo:
            echoes = [self._echo(text, ids) for text, ids in encoded]
        return CompletionShape(
            id=request_id,
            created=int(time.time()),
            model=model,
            prompts=[ids for _, ids in encoded],
            n=request.n or 1,
            num_generated=request.num_generated,
            names=self._frontend.token_text(request.return_tokens_as_token_ids),
            echoes=echoes,
            generate=not (request.echo and request.max_tokens == 0),
            logprobs=request.logprobs is not None,
            prompt_logprobs=request.prompt_logprobs is not None,
            token_ids=bool(request.return_token_ids),
            usage_details=options.enable_prompt_tokens_details,
        )

    def _echo(self, text: str | None, ids: tuple[int, ...]) -> str:
        if text is not None:
            return text
        return self._frontend.require_tokenizer().decode(ids)


def _reply(
    request: CompletionRequest, shape: CompletionShape, options: ServerOptions
) -> CompletionAnswer | CompletionFrames:
    if not request.stream:
        return CompletionAnswer(shape)
    return CompletionFrames(
        shape, stream_options(request.stream_options, options.enable_force_include_usage)
    )
