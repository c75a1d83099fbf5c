"""What a request must fulfil to be taken in: the front checks too, the engine trusts nobody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jackfield.contracts.messages import AddRequest
from jackfield.contracts.sampling import TokenSampling
from jackfield.engine.outbox import MAX_LOGPROBS, too_many_logprobs
from jackfield.engine.request import Request
from jackfield.errors import RequestError


@dataclass(frozen=True, slots=True)
class RequestBounds:
    """What one request may have at most."""

    max_model_len: int
    logits_width: int
    max_block_tokens: int
    """Tokens that all KV blocks together hold."""
    max_step_tokens: int
    """Tokens that one step computes at most."""
    pooling: bool = False
    """Whether requests end in a vector, all of them, or in tokens."""


def make_request(message: AddRequest, bounds: RequestBounds) -> Request:
    """The request that ``message`` asks for; ``RequestError`` says what cannot be served."""
    if not message.prompt or len(message.prompt) % 4:
        raise RequestError("the prompt is empty or is not int32 ids", param="prompt")
    if message.pooling != bounds.pooling:
        does = "makes vectors and generates nothing" if bounds.pooling else "makes no vectors"
        raise RequestError(f"the engine {does}")
    # Inside, a vector takes the place of the one token that a request ends with.
    max_tokens = 1 if message.pooling else message.max_tokens
    if max_tokens < 1:
        raise RequestError(
            f"max_tokens must be at least 1, not {message.max_tokens}", param="max_tokens"
        )
    ids = np.frombuffer(message.prompt, dtype="<i4")
    # As unsigned numbers those below 0 are the largest.
    if np.maximum.reduce(ids.view("<u4")) >= bounds.logits_width:
        _check_ids("prompt", int(ids.min()), int(ids.max()), bounds.logits_width)
    total = len(ids) + max_tokens
    if message.pooling:
        _check_prompt(len(ids), bounds)
    elif total > bounds.max_model_len:
        raise RequestError(
            f"the prompt has {len(ids)} tokens and max_tokens is {message.max_tokens}: together "
            f"more than the context of {bounds.max_model_len} tokens",
            param="max_tokens",
        )
    # The last token is only sampled; its KV is never computed.
    if total - 1 > bounds.max_block_tokens:
        raise RequestError(
            f"the request may need {total - 1} tokens of KV cache; there are "
            f"{bounds.max_block_tokens} in all: lower max_tokens or give the cache more memory",
            param="max_tokens",
        )
    _check_sampling(message.sampling, bounds.logits_width)
    _check_logprobs(message.sampling, len(ids), bounds)
    return Request(
        message.key,
        message.prompt,
        message.sampling,
        max_tokens,
        arrival=message.arrival,
        priority=message.priority,
        cache_salt=message.cache_salt,
        user=message.user,
    )


def _check_prompt(num_tokens: int, bounds: RequestBounds) -> None:
    longest = min(bounds.max_model_len, bounds.max_block_tokens)
    if num_tokens > longest:
        raise RequestError(
            f"the prompt has {num_tokens} tokens; the context has {longest}", param="prompt"
        )


def _check_sampling(sampling: TokenSampling, logits_width: int) -> None:
    lists = {
        "stop_token_ids": sampling.stop_token_ids,
        "min_tokens": sampling.min_tokens_ids,
        "logit_bias": [token for token, _ in sampling.logit_bias],
        "allowed_token_ids": sampling.allowed_token_ids or (),
        "bad_words": [token for word in sampling.bad_words for token in word],
        "thinking_token_budget": sampling.thinking.close_ids if sampling.thinking else (),
    }
    for name, ids in lists.items():
        if ids:
            _check_ids(name, min(ids), max(ids), logits_width)


def _check_logprobs(sampling: TokenSampling, num_tokens: int, bounds: RequestBounds) -> None:
    """Not more of a prompt than a message holds: they are refused before they are made."""
    if sampling.prompt_logprobs is None:
        return
    each = min(sampling.prompt_logprobs, bounds.logits_width)
    if min(num_tokens, bounds.max_step_tokens) * each > MAX_LOGPROBS:
        raise too_many_logprobs("prompt_logprobs")


def _check_ids(name: str, lowest: int, highest: int, logits_width: int) -> None:
    if lowest < 0 or highest >= logits_width:
        wrong = lowest if lowest < 0 else highest
        raise RequestError(
            f"token id {wrong} in {name} is not between 0 and {logits_width - 1}", param=name
        )
