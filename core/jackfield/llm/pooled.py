"""Prompts that end in vectors, at the door: to the engine, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager

import numpy as np

from jackfield.contracts.generation import ChoiceDelta, Finish
from jackfield.contracts.messages import AddRequest, FinishReason, StepTokens
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.contracts.sampling import TokenSampling
from jackfield.errors import RequestError
from jackfield.llm.run import Run
from jackfield.text.output import FINISH_NAMES

MAX_VECTOR_BYTES = 128 << 20


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
    """Ends the requests that a step has ended, each with its vectors or its failure."""
    for part in step.pooled:
        run, _ = runs.get(part.key, (None, 0))
        if run is not None:
            run.vectors = [*(run.vectors if part.first else ()), part.vector]
    failures = {entry.key: entry for entry in step.failed}
    finishes = np.frombuffer(step.finish, dtype=np.int8).tolist()
    for key, reason in zip(keys, finishes, strict=True):
        run, _ = runs.get(key, (None, 0))
        if run is None or reason == FinishReason.RUNNING:
            continue
        del runs[key]
        if reason == FinishReason.STOP:
            run.first_token = run.last_token = now
        failure = failures.get(key)
        finish = Finish(
            FINISH_NAMES[reason],
            message=None if failure is None else failure.message,
            param=None if failure is None else failure.param,
        )
        run.push(ChoiceDelta(0, "", (), finish=finish), finish)


def pooled_of(run: Run, deltas: Sequence[ChoiceDelta], *, by_token: bool) -> Pooled:
    """What a run has ended in, a vector or one for each token; ``RequestError`` where that is
    none."""
    finish = deltas[-1].finish
    if finish is None or finish.reason != "stop":
        message = None if finish is None else finish.message
        raise RequestError(
            message or "the request was aborted", None if finish is None else finish.param
        )
    vector = np.frombuffer(b"".join(run.vectors), dtype="<f4")
    if by_token:
        vector = vector.reshape(len(run.request.prompt_token_ids), -1)
    return Pooled(vector, run.num_cached)


class VectorRoom:
    """How many bytes of vectors may be under way to this process: where every token has one, the
    engine can make more than is taken in time. Who comes first goes first; a prompt that is larger
    than all of the room goes alone. ``token_bytes`` 0: there is room for all."""

    def __init__(self, token_bytes: int, max_bytes: int = MAX_VECTOR_BYTES) -> None:
        self._token_bytes = token_bytes
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self.num_waiting = 0
        """Prompts that have no room yet."""
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def room_for(self, num_tokens: int) -> AsyncIterator[None]:
        """Waits until the vectors of a prompt fit; they are under way inside the block."""
        size = num_tokens * self._token_bytes
        self.num_waiting += 1
        try:
            async with self._turn:
                while self._num_bytes and self._num_bytes + size > self._max_bytes:
                    self._freed.clear()
                    await self._freed.wait()
                self._num_bytes += size
        finally:
            self.num_waiting -= 1
        try:
            yield
        finally:
            self._num_bytes -= size
            self._freed.set()
