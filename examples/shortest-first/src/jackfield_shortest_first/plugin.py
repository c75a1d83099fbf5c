"""Short prompts first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from jackfield.contracts.scheduling import Blocks, Schedule, SchedulerLimits, SchedulerRequest

Entry = tuple[SchedulerRequest, int]


class ShortestFirstScheduler:
    """Short prompts first, and nobody starves: a prompt waits as if it had come later, the longer
    the later.

    Running requests go first; where blocks run out, the one that was admitted last gives up its
    own. The order alone would be a queue policy of ten lines; this is a whole scheduler.
    """

    name: ClassVar[str] = "shortest_first"
    api_version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class Options:
        """--plugin-option shortest_first.seconds_per_token=X"""

        seconds_per_token: float = field(
            default=0.001, metadata={"help": "how much later a prompt seems to come, by its length"}
        )

    def __init__(self, limits: SchedulerLimits, *, options: Options = Options()) -> None:
        self._seconds_per_token = options.seconds_per_token
        self._limits = limits
        self._waiting: list[SchedulerRequest] = []
        self._running: list[SchedulerRequest] = []

    def order(self, request: SchedulerRequest) -> tuple[float, ...]:
        """The lowest waits at the front."""
        later = self._seconds_per_token * request.num_prompt_tokens
        return (request.arrival + later, request.key)

    def add(self, request: SchedulerRequest) -> None:
        """A new request."""
        self._waiting.append(request)
        self._waiting.sort(key=self.order)

    def finish(self, request: SchedulerRequest) -> None:
        """It ended, or was aborted."""
        queue = self._running if request in self._running else self._waiting
        queue.remove(request)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests without blocks."""
        return len(self._waiting)

    def schedule(self, blocks: Blocks) -> Schedule:
        """The next step."""
        entries: list[Entry] = []
        preempted: list[SchedulerRequest] = []
        budget = self._serve_running(blocks, entries, preempted)
        if not preempted:
            self._admit(blocks, entries, budget)
        for request in preempted:
            self.add(request)
        return Schedule(tuple(entries), tuple(preempted))

    def _serve_running(
        self, blocks: Blocks, entries: list[Entry], preempted: list[SchedulerRequest]
    ) -> int:
        budget = self._limits.max_num_batched_tokens
        for request in list(self._running):
            num_tokens = self._tokens(request.num_tokens - request.num_computed_tokens, budget)
            if request in preempted or not num_tokens:
                continue
            while not blocks.grow(request, num_tokens):
                victim = self._running.pop()
                blocks.release(victim)
                preempted.append(victim)
                if victim is request:
                    break
            else:
                entries.append((request, num_tokens))
                budget -= num_tokens
        return budget

    def _admit(self, blocks: Blocks, entries: list[Entry], budget: int) -> None:
        while self._waiting and len(self._running) < self._limits.max_num_seqs:
            request = self._waiting[0]
            num_tokens = self._tokens(request.num_tokens - blocks.match(request), budget)
            # One that was preempted may have a token in flight: it must be seen first.
            if request.num_in_flight or not num_tokens or not blocks.admit(request, num_tokens):
                return
            self._running.append(self._waiting.pop(0))
            entries.append((request, num_tokens))
            budget -= num_tokens

    def _tokens(self, num_left: int, budget: int) -> int:
        """How many of the tokens that are left may be computed now."""
        if not self._limits.enable_chunked_prefill:
            return num_left if num_left <= budget else 0
        threshold = self._limits.long_prefill_token_threshold or num_left
        return min(num_left, budget, threshold)
