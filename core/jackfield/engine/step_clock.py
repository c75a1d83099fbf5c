"""Where the time of the engine's loop goes, by stage and kind of step; how large steps are."""

from __future__ import annotations

import time
from bisect import bisect_left

from jackfield.contracts.messages import STEP_TOKEN_BOUNDS

RECEIVE, SCHEDULE, BUILD, MASK, LAUNCH, WAIT, COLLECT, SEND, IDLE = range(9)
STAGES = ("receive", "schedule", "build", "mask", "launch", "wait", "collect", "send", "idle")
"""Messages read; requests chosen; the batch made; what grammars allow filled in; the step handed to
the worker; the device waited for; its tokens taken in; told to the API process; nothing to do."""

KINDS = ("decode", "prompt")
"""Steps of one token a request, and steps with pieces of prompts."""


class StepClock:
    """Adds up what the loop spends. One thread; 0.1 us a mark, about ten marks a step."""

    def __init__(self) -> None:
        self._stages = [0.0] * len(STAGES)
        self._counts = [0] * len(KINDS)
        self._seconds = [0.0] * len(KINDS)
        self._sizes = [0] * (len(STEP_TOKEN_BOUNDS) + 1)
        self.num_tokens = 0
        """What the steps that are over have computed."""
        self._last = self._over = time.perf_counter()

    def mark(self, stage: int) -> None:
        """What has passed since the last mark belongs to ``stage``."""
        now = time.perf_counter()
        self._stages[stage] += now - self._last
        self._last = now

    @property
    def last(self) -> float:
        """When the last mark was, in seconds of ``time.perf_counter``."""
        return self._last

    def step_over(self, began: float, num_tokens: int, has_prompts: bool) -> None:
        """A step is over, as of the last mark; ``began``: when its launch did. The time since then,
        or since the step before it was over, is its own."""
        self._counts[has_prompts] += 1
        self._seconds[has_prompts] += self._last - max(began, self._over)
        self._over = self._last
        self._sizes[bisect_left(STEP_TOKEN_BOUNDS, num_tokens)] += 1
        self.num_tokens += num_tokens

    def stage_seconds(self) -> dict[str, float]:
        """By stage, since the start."""
        return dict(zip(STAGES, self._stages, strict=True))

    def num_steps(self) -> dict[str, int]:
        """Steps that are over, by kind."""
        return dict(zip(KINDS, self._counts, strict=True))

    def step_seconds(self) -> dict[str, float]:
        """What those took, one behind the other."""
        return dict(zip(KINDS, self._seconds, strict=True))

    def steps_by_size(self) -> tuple[int, ...]:
        """Steps that are over, by ``STEP_TOKEN_BOUNDS``."""
        return tuple(self._sizes)
