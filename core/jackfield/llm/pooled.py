"""Prompts that end in vectors, at the door: to the engine, and what comes back."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

import numpy as np

from jackfield.contracts.generation import ChoiceDelta, Finish, FinishName
from jackfield.contracts.messages import AddRequest, FinishReason, StepTokens
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.contracts.sampling import TokenSampling
from jackfield.errors import RequestError
from jackfield.llm.run import Run

_NAMES: dict[int, FinishName] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORT: "abort",
    FinishReason.ERROR: "error",
}


def pooling_run(request: PoolingRequest, key: int, arrival: float) -> Run:
    """The request under way."""
    message = AddRequest(
        key=key,
        prompt=np.asarray(request.prompt_token_ids, dtype="<i4").tobytes(),
        sampling=TokenSampling(),
        max_tokens=0,
        arrival=arrival,
        priority=request.priority,
        cache_salt=request.cache_salt,
        user=request.user,
        pooling=True,
    )
    return Run(request, [message], list, arrival, 0, wake_at_end=True, waits_for_text=False)


def hand_out_vectors(
    step: StepTokens, keys: Sequence[int], runs: MutableMapping[int, tuple[Run, int]], now: float
) -> None:
    """Ends the requests that a step has ended, each with its vector or its failure."""
    vectors = {entry.key: entry.vector for entry in step.pooled}
    failures = {entry.key: entry for entry in step.failed}
    finishes = np.frombuffer(step.finish, dtype=np.int8).tolist()
    for key, reason in zip(keys, finishes, strict=True):
        run, _ = runs.pop(key, (None, 0))
        if run is None:
            continue
        run.vector = vectors.get(key)
        if run.vector is not None:
            run.first_token = run.last_token = now
        failure = failures.get(key)
        finish = Finish(
            _NAMES[reason],
            message=None if failure is None else failure.message,
            param=None if failure is None else failure.param,
        )
        run.push(ChoiceDelta(0, "", (), finish=finish), finish)


def pooled_of(run: Run, deltas: Sequence[ChoiceDelta]) -> Pooled:
    """What a run has ended in; ``RequestError`` where that is no vector."""
    if run.vector is None:
        finish = deltas[-1].finish
        message = None if finish is None else finish.message
        raise RequestError(
            message or "the request was aborted", None if finish is None else finish.param
        )
    return Pooled(np.frombuffer(run.vector, dtype="<f4"), run.num_cached)
