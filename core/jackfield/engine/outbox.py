"""What a step has to tell the API process, gathered into one message of flat arrays."""

from __future__ import annotations

import numpy as np

from jackfield.contracts.messages import (
    EngineStats,
    FinishReason,
    RequestFailed,
    RequestLogprobs,
    RequestPooled,
    StepTokens,
)
from jackfield.engine.request import Request

NO_TOKEN = -1


class Outbox:
    """Collects tokens and endings for one message. The step loop appends to the three lists
    itself, one call fewer for every token."""

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.token_ids: list[int] = []
        self.finish: list[int] = []
        self.logprobs: list[RequestLogprobs] = []
        self.failed: list[RequestFailed] = []
        self.pooled: list[RequestPooled] = []
        self.has_finish = False
        self._firsts: list[tuple[int, int, float]] = []

    def add(self, key: int, token_id: int, finish: FinishReason) -> None:
        """One entry; ``NO_TOKEN`` for an ending, or logprobs, without a token."""
        self.keys.append(key)
        self.token_ids.append(token_id)
        self.finish.append(finish)
        self.has_finish = self.has_finish or bool(finish)

    def note_first(self, request: Request) -> None:
        """The entry that was appended last is the request's first token."""
        first = (len(self.keys) - 1, request.num_cached_tokens, request.first_scheduled)
        self._firsts.append(first)

    @property
    def has_first(self) -> bool:
        """Whether an entry is a request's first token."""
        return bool(self._firsts)

    def message(self, stats: EngineStats | None) -> StepTokens:
        """Everything gathered."""
        count = len(self.keys)
        num_cached = scheduled = b""
        if self._firsts:
            cached_array = np.zeros(count, dtype="<i4")
            scheduled_array = np.zeros(count, dtype="<f8")
            for index, cached, moment in self._firsts:
                cached_array[index] = cached
                scheduled_array[index] = moment
            num_cached, scheduled = cached_array.tobytes(), scheduled_array.tobytes()
        return StepTokens(
            keys=np.array(self.keys, dtype="<i8").tobytes(),
            token_ids=np.array(self.token_ids, dtype="<i4").tobytes(),
            finish=np.array(self.finish, dtype=np.int8).tobytes(),
            num_cached=num_cached,
            scheduled=scheduled,
            logprobs=self.logprobs,
            failed=self.failed,
            pooled=self.pooled,
            stats=stats,
        )
