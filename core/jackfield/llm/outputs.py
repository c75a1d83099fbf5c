"""What ``LLM.generate`` returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jackfield.contracts.generation import ChoiceDelta
from jackfield.contracts.messages import TokenLogprobs


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One finished choice. ``logprobs`` is aligned with ``token_ids`` where asked for."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: str
    stop_reason: str | int | None


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """One prompt with all its choices. ``prompt_logprobs`` starts at position 1."""

    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...]
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    num_cached_tokens: int = 0


def merge_choice(index: int, deltas: Iterable[ChoiceDelta]) -> CompletionOutput:
    """One choice from its deltas, in order."""
    text: list[str] = []
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] = []
    finish = None
    for delta in deltas:
        text.append(delta.text)
        token_ids.extend(delta.token_ids)
        logprobs.extend(delta.logprobs)
        finish = delta.finish or finish
    assert finish is not None, "every choice ends in a delta with finish"
    return CompletionOutput(
        index=index,
        text="".join(text),
        token_ids=tuple(token_ids),
        logprobs=tuple(logprobs),
        finish_reason=finish.reason,
        stop_reason=finish.stop_reason,
    )
