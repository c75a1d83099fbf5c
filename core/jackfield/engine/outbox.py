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
from jackfield.errors import RequestError

NO_TOKEN = -1
MAX_LOGPROBS = 3 << 20
"""Logprobs in one message, each of them an id and a number: at most 14 bytes."""


class Outbox:
    """Collects tokens and endings for one message. The step loop appends to the three lists
    itself, one call fewer for every token."""

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.token_ids: list[int] = []
        self.finish: list[int] = []
        self.logprobs: list[RequestLogprobs] = []
        self._num_logprobs = 0
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

    def add_logprobs(self, logprobs: RequestLogprobs) -> None:
        """Those of a step; ``RequestError`` where a message would be too long with them."""
        entries = (*logprobs.prompt, *logprobs.output)
        # An entry has the chosen token and a rank beside the most likely ones.
        count = self._num_logprobs + sum(len(entry.top_ids) + 2 for entry in entries)
        if count > MAX_LOGPROBS:
            raise too_many_logprobs("prompt_logprobs" if logprobs.prompt else "logprobs")
        self._num_logprobs = count
        self.logprobs.append(logprobs)

    def note_first(self, request: Request) -> None:
        """The entry that was appended last is the request's first token."""
        first = (len(self.keys) - 1, request.num_cached_tokens, request.first_scheduled)
        self._firsts.append(first)

    @property
    def is_long(self) -> bool:
        """Whether it should go out before another step adds to it: the vectors of one step may be
        all that a message holds."""
        return bool(self.pooled) or self._num_logprobs > MAX_LOGPROBS // 2

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


def too_many_logprobs(param: str) -> RequestError:
    """For a request that asked for them."""
    return RequestError(
        f"a step would have more than {MAX_LOGPROBS} logprobs; ask for fewer, or let the server "
        "compute fewer tokens a step (--max-num-batched-tokens)",
        param=param,
    )
