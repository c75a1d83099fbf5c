"""Steps that have come together, as one message: a reader that is far behind catches up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jackfield.contracts.messages import FromEngine, StepTokens

MIN_JOINED = 4
"""So many steps make a reader that is far behind. Fewer are handed out one by one: a stream is to
have its tokens singly while that can be."""

_EMPTY_CACHED, _EMPTY_SCHEDULED = b"\0" * 4, b"\0" * 8


def joined(messages: Iterable[FromEngine]) -> Iterator[FromEngine]:
    """The messages in their order, ``MIN_JOINED`` neighbouring steps or more joined: a request may
    have several tokens in one then, and the last statistics count."""
    steps: list[StepTokens] = []
    for message in messages:
        if isinstance(message, StepTokens):
            steps.append(message)
            continue
        yield from _few_or_one(steps)
        steps = []
        yield message
    yield from _few_or_one(steps)


def _few_or_one(steps: list[StepTokens]) -> list[StepTokens]:
    return steps if len(steps) < MIN_JOINED else [_joined(steps)]


def _joined(steps: list[StepTokens]) -> StepTokens:
    has_firsts = any(step.num_cached for step in steps)
    stats = [step.stats for step in steps if step.stats is not None]
    return StepTokens(
        keys=b"".join(step.keys for step in steps),
        token_ids=b"".join(step.token_ids for step in steps),
        finish=b"".join(step.finish for step in steps),
        num_cached=_filled(steps, _EMPTY_CACHED, "num_cached") if has_firsts else b"",
        scheduled=_filled(steps, _EMPTY_SCHEDULED, "scheduled") if has_firsts else b"",
        logprobs=[entry for step in steps for entry in step.logprobs],
        failed=[entry for step in steps for entry in step.failed],
        pooled=[entry for step in steps for entry in step.pooled],
        stats=stats[-1] if stats else None,
    )


def _filled(steps: list[StepTokens], empty: bytes, column: str) -> bytes:
    """A column that only some steps have, with zeros for the others."""
    return b"".join(getattr(step, column) or empty * len(step.finish) for step in steps)
