"""Sampling parameters to the ids and numbers that the engine needs, checked against the model."""

from __future__ import annotations

import random
from collections.abc import Iterable

from jackfield.contracts.grammar import GrammarSpec
from jackfield.contracts.sampling import MAX_SEED, SamplingParams, ThinkingBudget, TokenSampling
from jackfield.contracts.text import Tokenizer
from jackfield.errors import RequestError
from jackfield.text.grammar import grammar_spec
from jackfield.text.reasoning import ReasoningIds

_GREEDY_BELOW = 1e-5


def token_sampling(
    params: SamplingParams,
    tokenizer: Tokenizer | None,
    *,
    logits_width: int,
    eos_token_ids: tuple[int, ...],
    max_logprobs: int,
    reasoning: ReasoningIds | None = None,
) -> TokenSampling:
    """``RequestError`` names the field that does not suit the model. A request without a seed
    gets a random one; temperatures too small to divide by are greedy. ``reasoning``: None where
    the output holds no thinking; a budget for it then changes nothing."""
    _check_ids("stop_token_ids", params.stop_token_ids, logits_width)
    _check_ids("logit_bias", params.logit_bias or (), logits_width)
    _check_ids("allowed_token_ids", params.allowed_token_ids or (), logits_width)
    num_logprobs = {
        name: _num_logprobs(name, getattr(params, name), logits_width, max_logprobs)
        for name in ("logprobs", "prompt_logprobs")
    }
    if params.stop_strings and (tokenizer is None or not params.detokenize):
        raise RequestError("stop strings need text: the output is not detokenized", param="stop")
    eos = _end_of_text(eos_token_ids, tokenizer, logits_width)
    stop_ids = tuple(params.stop_token_ids)
    ends = _unique((*(() if params.ignore_eos else eos), *stop_ids))
    return TokenSampling(
        temperature=params.temperature if params.temperature >= _GREEDY_BELOW else 0.0,
        top_k=params.top_k if 0 < params.top_k < logits_width else 0,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        seed=random.getrandbits(63) if params.seed is None else params.seed & MAX_SEED,
        min_tokens=params.min_tokens,
        min_tokens_ids=_unique((*eos, *stop_ids)) if params.min_tokens else (),
        stop_token_ids=ends,
        logit_bias=tuple((params.logit_bias or {}).items()),
        allowed_token_ids=_allowed(params),
        bad_words=_bad_words(params.bad_words, tokenizer, logits_width),
        **num_logprobs,
        logits_processors=params.logits_processors,
        extra_args=params.extra_args,
        reasoning_start_ids=reasoning.start if reasoning else (),
        reasoning_end_ids=reasoning.answer if reasoning else (),
        starts_in_reasoning=bool(reasoning and reasoning.opened),
        thinking=_thinking(params.thinking_token_budget, reasoning),
        grammar=_grammar(params, tokenizer),
    )


def _end_of_text(
    told: tuple[int, ...], tokenizer: Tokenizer | None, logits_width: int
) -> tuple[int, ...]:
    """The ids that end a text: those of the configuration, and the tokenizer's own. Of models that
    were tuned to another end of a turn often only the tokenizer knows it."""
    own = None if tokenizer is None else tokenizer.eos_token_id
    ids = told if own is None else (*told, own)
    return _unique(id for id in ids if id < logits_width)


def _num_logprobs(name: str, count: int | None, width: int, limit: int) -> int | None:
    """How many of a position's ids are told; -1 stands for all ``width``."""
    if count == -1:
        count = width
    if count is not None and count > limit:
        raise RequestError(f"{name} is {count}, and this server gives at most {limit}", param=name)
    return count


def _grammar(params: SamplingParams, tokenizer: Tokenizer | None) -> GrammarSpec | None:
    if params.structured_outputs is None:
        return None
    if tokenizer is None:
        raise RequestError(
            "structured_outputs need a tokenizer, and there is none", param="structured_outputs"
        )
    return grammar_spec(params.structured_outputs)


def _thinking(budget: int | None, reasoning: ReasoningIds | None) -> ThinkingBudget | None:
    if budget is None or reasoning is None:
        return None
    return ThinkingBudget(budget, reasoning.ends, reasoning.closing)


def _unique(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(ids))


def _allowed(params: SamplingParams) -> tuple[int, ...] | None:
    ids = params.allowed_token_ids
    return None if ids is None else _unique(ids)


def _check_ids(name: str, ids: Iterable[int], logits_width: int) -> None:
    for token_id in ids:
        if type(token_id) is not int or not 0 <= token_id < logits_width:
            raise RequestError(
                f"{name} holds token id {token_id}; ids of this model are 0 to {logits_width - 1}",
                param=name,
            )


def _bad_words(
    words: Iterable[str], tokenizer: Tokenizer | None, logits_width: int
) -> tuple[tuple[int, ...], ...]:
    """Each word as the ids it has at the beginning of a text, and those it has behind a space
    where these differ in the first id only (as vLLM does)."""
    sequences: dict[tuple[int, ...], None] = {}
    for word in words:
        if tokenizer is None:
            raise RequestError("bad_words need a tokenizer, and there is none", param="bad_words")
        bare = word.lstrip() or word
        plain = tuple(tokenizer.encode(bare, add_special_tokens=False))
        spaced = tuple(tokenizer.encode(" " + bare, add_special_tokens=False))
        if not plain or max(plain) >= logits_width:
            raise RequestError(
                f"bad_words holds {word!r}, which this model has no tokens for", param="bad_words"
            )
        sequences[plain] = None
        if len(spaced) == len(plain) and spaced[0] != plain[0] and max(spaced) < logits_width:
            sequences[spaced] = None
    return tuple(sequences)
