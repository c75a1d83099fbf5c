"""A request as the one door (``jackfield.llm``) takes it, and what comes out, piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from jackfield.contracts.messages import TokenLogprobs
from jackfield.contracts.sampling import SamplingParams
from jackfield.contracts.text import Event

FinishName = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to continue, ``sampling.n`` times.

    ``prompt_token_ids`` is checked and fits the context. ``parse`` sends the output through
    the reasoning parser and, where ``tools`` is not empty, the tool parser; without it a
    choice's text comes as it is.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    prompt_text: str | None = None
    parse: bool = False
    tools: Sequence[Mapping[str, object]] = ()
    template_kwargs: Mapping[str, object] = field(default_factory=dict)
    priority: int = 0
    cache_salt: str | None = None
    user: str | None = None


class Finish(msgspec.Struct, frozen=True):
    """Why a choice ended. ``stop_reason`` is the stop string or the stop token id that ended it
    (None for the end-of-sequence token); ``message`` is set for ``error``, and ``param`` too where
    a field of the request is at fault."""

    reason: FinishName
    stop_reason: str | int | None = None
    message: str | None = None
    param: str | None = None


class ChoiceDelta(msgspec.Struct, frozen=True):
    """What one choice gained. The last one of a choice, and only it, has ``finish``.

    ``text`` is the new text, stop strings removed as asked. ``events`` say the same where the
    request asked to ``parse`` (then use them and not ``text``). ``token_ids`` are all new ids,
    held-back text or not. ``logprobs`` is aligned with ``token_ids`` where asked for.
    ``prompt_logprobs`` (position 1 on, in order, in pieces) come before the first token.
    ``num_cached_tokens`` is set with the first delta of a choice. ``num_reasoning_tokens``: how
    many of the ids are thinking; below 0 where earlier ones turned out to be its end marker.

    Made for every token, so that it is no dataclass; ``msgspec.structs.replace`` gives another
    one with some fields changed.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    events: tuple[Event, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    num_cached_tokens: int = 0
    finish: Finish | None = None
    num_reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A finished request, for observers. Times are monotonic seconds; None where the request
    ended before the event. ``finish`` is the last choice's reason; ``max_choice_tokens`` what the
    longest choice has of ``num_output_tokens``."""

    request_id: str
    arrival: float
    first_scheduled: float | None
    first_token: float | None
    last_token: float | None
    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int
    finish: str
    n: int
    max_tokens: int
    max_choice_tokens: int = 0
