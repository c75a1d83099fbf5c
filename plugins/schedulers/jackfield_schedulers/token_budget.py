"""Continuous batching under one token budget; what the bundled schedulers share.

A step first serves the running requests, then admits waiting ones, both in the order that a
subclass gives. Prefill and decode draw on the same budget; a prompt that does not fit is
computed in chunks, and holds no decode up (Sarathi-Serve, arXiv 2403.02310). When blocks run out,
the running request that is last in order is preempted: it gives up its blocks and is recomputed
later. The first in order is never preempted, so every request ends.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from bisect import insort

from jackfield.contracts.scheduling import Blocks, Schedule, SchedulerLimits, SchedulerRequest
from jackfield.errors import ConfigError
from jackfield_schedulers.waiting import Order, WaitingRequests

Entry = tuple[SchedulerRequest, int]

MAX_PASSED_OVER = 16
"""How many waiting prompts that hit a limit for partial prefills may be overtaken in a step."""


class TokenBudgetScheduler(ABC):
    """Running requests in a sorted list, waiting ones in a heap; O(running + admitted) a step."""

    def __init__(self, limits: SchedulerLimits) -> None:
        budget = limits.max_num_batched_tokens
        if not limits.enable_chunked_prefill and budget < limits.max_model_len:
            raise ConfigError(
                f"max_num_batched_tokens ({budget}) is below max_model_len "
                f"({limits.max_model_len}): raise it or leave chunked prefill on"
            )
        self._limits = limits
        self._delay = _Delay(limits.delay_factor) if limits.delay_factor else None
        self._running: list[SchedulerRequest] = []
        self._waiting = WaitingRequests()

    @abstractmethod
    def order(self, request: SchedulerRequest) -> Order:
        """Who goes first (lowest); the last element is the key, so that it is unique."""

    def may_displace(self, waiting: SchedulerRequest, running: SchedulerRequest) -> bool:
        """Whether a waiting request for which there are no blocks may have those of a running
        one that comes after it."""
        return False

    def sets_aside(self, request: SchedulerRequest) -> bool:
        """Whether the first waiting request leaves the queue for now; ``add`` brings it back."""
        return False

    def started(self, request: SchedulerRequest) -> None:
        """A waiting request runs from now on."""
        return

    def stopped(self, request: SchedulerRequest) -> None:
        """A running request has ended or was preempted."""
        return

    # --- the contract ------------------------------------------------------------------

    def add(self, request: SchedulerRequest) -> None:
        """Takes a new request in. O(log waiting)."""
        self._waiting.add(self.order(request), request)

    def finish(self, request: SchedulerRequest) -> None:
        """Forgets a request, waiting or running."""
        if request in self._waiting:
            self._waiting.remove(request)
        else:
            self._running.remove(request)
            self.stopped(request)

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    @property
    def num_waiting(self) -> int:
        """Requests without blocks."""
        return len(self._waiting)

    def schedule(self, blocks: Blocks) -> Schedule:
        """Chooses the next step: first the running requests, then waiting ones."""
        step = _Step(self._limits, blocks, len(self._waiting))
        if len(self) == 1:
            step.budget = max(step.budget, self._limits.max_num_lone_tokens)
        self._serve_running(step)
        if self._waiting and not step.preempted and step.budget and not self._delays():
            self._admit_waiting(step)
        if self._delay is not None:
            self._delay.note(any(num_tokens != 1 for _, num_tokens in step.entries))
        for request in step.preempted:
            self.add(request)
        return Schedule(tuple(step.entries), tuple(step.preempted))

    # --- running requests ----------------------------------------------------------------

    def _serve_running(self, step: _Step) -> None:
        """O(running): a decoding request costs three attribute reads and one ``grow``."""
        running = self._running
        grow = step.blocks.grow
        entries = step.entries
        budget = step.budget
        # Preemption shortens the list at its end while it is walked, which Python allows.
        for request in running:
            if not budget:
                break
            num_tokens = num_left = request.num_tokens - request.num_computed_tokens
            if num_left != 1:
                # Each of those behind it decodes, or has a prompt that is to go on.
                num_behind = len(running) - len(entries) - 1
                num_tokens = step.chunk(num_left, max(1, budget - num_behind))
                step.note_prompt(request, num_left, num_tokens)
                if num_tokens <= 0:
                    continue
            while not grow(request, num_tokens):
                self._preempt(victim := running.pop(), step)
                if victim is request:
                    break
            else:
                entries.append((request, num_tokens))
                budget -= num_tokens
        step.budget = budget

    def _preempt(self, victim: SchedulerRequest, step: _Step) -> None:
        step.withdraw(victim)
        step.blocks.release(victim)
        step.preempted.append(victim)
        self.stopped(victim)

    def _delays(self) -> bool:
        """Whether the waiting requests wait for more company."""
        if self._delay is None or not self._running:
            return False
        first = self._waiting.first()
        return first is not None and self._delay.holds(first.arrival)

    # --- waiting requests ----------------------------------------------------------------

    def _admit_waiting(self, step: _Step) -> None:
        passed_over: list[SchedulerRequest] = []
        while step.budget and len(self._running) < self._limits.max_num_seqs:
            request = self._waiting.first()
            if request is None or request.num_in_flight:
                break
            if self.sets_aside(request):
                self._waiting.pop()
                continue
            num_left = request.num_tokens - step.blocks.match(request)
            num_tokens = self._first_chunk(num_left, step)
            if num_tokens == 0 and len(passed_over) < MAX_PASSED_OVER:
                passed_over.append(self._waiting.pop())
                continue
            if not num_tokens:
                break
            if not self._fits_whole(num_left, step) or not step.blocks.admit(request, num_tokens):
                if self._displace(request, step):
                    # What the victim had computed may be this request's cached prefix now.
                    continue
                break
            self._waiting.pop()
            insort(self._running, request, key=self.order)
            self.started(request)
            step.entries.append((request, num_tokens))
            step.budget -= num_tokens
            step.note_prompt(request, num_left, num_tokens)
        for request in passed_over:
            self.add(request)

    def _first_chunk(self, num_left: int, step: _Step) -> int | None:
        """Tokens to compute of the first waiting request; 0 if a limit for partial prefills
        lets others pass it, None if nobody may pass it."""
        if self._limits.enable_chunked_prefill:
            return step.chunk(num_left, step.budget)
        return num_left if num_left <= step.budget else None

    def _displace(self, request: SchedulerRequest, step: _Step) -> bool:
        """Preempts the last running request in favour of a waiting one, if that may be."""
        if not self._running or not self.may_displace(request, self._running[-1]):
            return False
        self._preempt(self._running.pop(), step)
        return True

    def _fits_whole(self, num_left: int, step: _Step) -> bool:
        """Whether there are blocks for the whole prompt beside those that running prompts still
        need: half-computed prompts that preempt each other would waste their work."""
        if not self._running:
            return True
        blocks = step.blocks
        num_needed = -(-(num_left + sum(step.reserved.values())) // blocks.block_size)
        return num_needed <= blocks.num_free


class _Delay:
    """Lets prompts gather, so that fewer steps have any: ``--scheduler-delay-factor``."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._last_prompt_seconds = 0.0
        self._prompt_since: float | None = None

    def note(self, has_prompt: bool) -> None:
        """A step was scheduled, with a prompt or without."""
        now = time.monotonic()
        if self._prompt_since is not None:
            self._last_prompt_seconds = now - self._prompt_since
        self._prompt_since = now if has_prompt else None

    def holds(self, arrival: float) -> bool:
        """Whether a request that arrived then has to wait longer."""
        waited = time.monotonic() - arrival
        return waited < self._factor * self._last_prompt_seconds


class _Step:
    """What one ``schedule`` call has given away so far."""

    def __init__(self, limits: SchedulerLimits, blocks: Blocks, num_waiting: int) -> None:
        self.blocks = blocks
        self.budget = limits.max_num_batched_tokens
        self.entries: list[Entry] = []
        self.preempted: list[SchedulerRequest] = []
        self.reserved: dict[int, int] = {}
        """By key: tokens of running prompts that later steps will compute."""
        self._limits = limits
        self._num_waiting = num_waiting
        self._num_partial = 0
        self._num_long = 0

    def chunk(self, num_left: int, budget: int) -> int:
        """How many of ``num_left`` tokens a prompt may have computed now; 0 where a limit for
        partial prefills is reached."""
        limits = self._limits
        threshold = limits.long_prefill_token_threshold
        num_tokens = min(num_left, budget)
        if threshold:
            num_tokens = min(num_tokens, threshold)
        if num_tokens == num_left or limits.max_num_partial_prefills == 1:
            return num_tokens
        if self._num_waiting:
            num_tokens = min(num_tokens, max(1, self._share()))
        is_long = 0 < threshold < num_left
        if self._num_partial >= limits.max_num_partial_prefills or (
            is_long and self._num_long >= limits.max_long_partial_prefills
        ):
            return 0
        return num_tokens

    def note_prompt(self, request: SchedulerRequest, num_left: int, num_tokens: int) -> None:
        """A prompt gets ``num_tokens`` of the ``num_left`` it needs."""
        if num_tokens == num_left:
            return
        self.reserved[request.key] = num_left - num_tokens
        if num_tokens:
            self._num_partial += 1
            self._num_long += 0 < self._limits.long_prefill_token_threshold < num_left

    def withdraw(self, request: SchedulerRequest) -> None:
        """Takes back what the request was given in this call, if anything."""
        self.reserved.pop(request.key, None)
        for index in range(len(self.entries) - 1, -1, -1):
            if self.entries[index][0] is request:
                self.budget += self.entries.pop(index)[1]
                return

    def _share(self) -> int:
        """The budget of one of several prompts that are computed side by side."""
        limits = self._limits
        num_sharing = min(limits.max_num_partial_prefills, self._num_partial + self._num_waiting)
        return limits.max_num_batched_tokens // num_sharing
