"""The step loop: schedule, execute one step ahead of the device, hand out tokens.

With two steps in flight, step N+1 is scheduled and enqueued while the device computes step N;
its input tokens are still on the device then. What follows from that:

- A request whose last token (``max_tokens``) is sampled by an enqueued step leaves the
  scheduler, its row and its blocks at once: the device computes steps in order, so whoever
  gets them next writes later.
- A stop token is seen one step late; the token sampled meanwhile is discarded.
- A preempted request may have a token in flight; it is appended when it arrives.
- A step in which a request samples under a grammar is enqueued up to its logits; then the steps
  before it are taken in, and their tokens say what the grammar allows. Its rest is enqueued right
  before the step that follows, which has been built by then, so that the device always has a
  forward pass to do.
- Tokens that a grammar forces are not sampled: the next step computes them together, as it would
  a piece of a prompt.

An exception that concerns one request ends that request with ``FinishReason.ERROR``; any other
leaves ``step`` and ends the engine.
"""

from __future__ import annotations

import time
from collections import deque
from typing import cast

from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    EngineStats,
    FinishReason,
    ResetPrefixCache,
    StepTokens,
)
from jackfield.contracts.scheduling import Scheduler
from jackfield.contracts.work import Executor, Int32Array
from jackfield.engine.admission import RequestBounds, make_request
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.constrained import ConstrainedRequests
from jackfield.engine.grammar_compiler import GrammarCompiler
from jackfield.engine.live_requests import LiveRequests
from jackfield.engine.outbox import Outbox
from jackfield.engine.outcomes import Outcomes, StepUnderWay
from jackfield.engine.request import Request
from jackfield.engine.step_builder import BuiltStep, Entries, StepBuilder
from jackfield.engine.step_clock import BUILD, LAUNCH, MASK, SCHEDULE, StepClock
from jackfield.errors import RAISED, EngineError, RequestError

STATS_INTERVAL_SECONDS = 0.25


class EngineCore:
    """Every request in the engine, and the steps that serve them. One thread."""

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        blocks: BlockManager,
        bounds: RequestBounds,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        steps_in_flight: int,
        grammars: GrammarCompiler | None = None,
        stream_interval: int = 1,
    ) -> None:
        self._executor = executor
        self._scheduler = scheduler
        self._blocks = blocks
        self._bounds = bounds
        self._steps_in_flight = steps_in_flight
        self._builder = StepBuilder(scheduler.name, blocks, max_num_seqs, max_num_batched_tokens)
        self._live = LiveRequests(scheduler, blocks, self._builder)
        self.requests = self._live.by_key
        self._under_way: deque[StepUnderWay] = deque()
        self._begun_at = 0.0
        self._begun: BuiltStep | None = None
        """The newest step, where it waits for masks; all others are in ``_under_way``."""
        self._constrained = ConstrainedRequests(grammars, bounds.logits_width, executor)
        self.clock = StepClock()
        self._outcomes = Outcomes(self._live, blocks, self._constrained, self.clock)
        self._stream_interval = stream_interval
        self._num_held_steps = 0
        self._next_stats = 0.0
        self._num_preemptions = 0

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do."""
        return bool(
            self._under_way
            or self._begun is not None
            or self._live.outbox.keys
            or len(self._scheduler)
            or self._constrained.has_ready
        )

    @property
    def is_compiling(self) -> bool:
        """Whether ``has_work`` may become true without a message: a grammar is being compiled."""
        return bool(len(self._constrained))

    @property
    def num_free_rows(self) -> int:
        """Rows of the batch state that no request has."""
        return self._builder.num_free_rows

    def warm_up(self) -> None:
        """Loads in the background what requests may need that have not come yet. For an engine that
        has nothing to do."""
        self._constrained.warm_up()

    def give_back_blocks(self) -> Int32Array:
        """Free KV blocks whose content is forgotten and whose memory may go; see
        ``BlockManager.give_back``."""
        return self._blocks.give_back()

    def forget_device_memory(self) -> None:
        """For an engine without requests whose workers are about to give their memory up: what the
        KV blocks hold, and the room for masks, go with it."""
        self._blocks.reset()
        self._constrained.forget_room()

    # --- messages ------------------------------------------------------------------------

    def take_in(self, message: AddRequest | AbortRequests | ResetPrefixCache) -> None:
        """Obeys a message; a request that cannot be served fails by itself."""
        if isinstance(message, AddRequest):
            self._add(message)
        elif isinstance(message, AbortRequests):
            for key in message.keys:
                request = self.requests.get(key)
                if request is not None:
                    self._live.end(request, FinishReason.ABORT)
        else:
            self._blocks.reset()

    def abort_all(self) -> None:
        """Ends every request with ``FinishReason.ABORT``."""
        for request in list(self.requests.values()):
            self._live.end(request, FinishReason.ABORT)

    def _add(self, message: AddRequest) -> None:
        try:
            if message.key in self.requests:
                raise RequestError(f"request {message.key} is in the engine already")
            request = make_request(message, self._bounds)
            if request.sampling.grammar is None:
                self._live.schedule(request)
            else:
                self._constrained.add(request)
        except RAISED as error:
            self._live.report_failure(message.key, error)
            return
        self.requests[request.key] = request

    def _take_in_constrained(self) -> None:
        """Requests whose grammar has been compiled go on; others fail by themselves."""
        for request, error in self._constrained.take_ready():
            if request.ended:
                continue
            if error is not None:
                self._live.fail(request, error)
                continue
            try:
                self._live.schedule(request)
            except RAISED as failure:
                self._live.fail(request, failure)

    # --- steps ---------------------------------------------------------------------------

    def step(self) -> StepTokens | None:
        """Enqueues the next step and takes in the oldest one where enough are under way.

        Returns what there is to tell. O(requests in the step) in Python, about 0.2 ms for 256
        decodes (``bench/engine_step.py``). Waits for the device where it is behind.
        """
        if len(self._constrained):
            self._take_in_constrained()
        self._jump()
        built = self._build() if len(self._scheduler) else None
        if self._begun is not None:
            self._finish_begun()
        enqueued = built is not None
        if built is not None:
            self._enqueue(built)
        if self._begun is not None:
            self._collect_all()
        elif self._under_way and (not enqueued or len(self._under_way) >= self._steps_in_flight):
            self._outcomes.collect(self._under_way.popleft())
        if self._begun is not None and self._steps_in_flight == 1:
            self._finish_begun()
            self._collect_all()
        if self._stream_interval > 1 and self._holds_back():
            return None
        return self.take_output()

    def _holds_back(self) -> bool:
        """Whether what has gathered goes out with the tokens of a later step: a first token and an
        ending never wait."""
        self._num_held_steps += 1
        outbox = self._live.outbox
        goes_on = bool(self._under_way or self._begun or len(self._scheduler))
        if (
            goes_on
            and not (outbox.has_finish or outbox.has_first or outbox.is_long)
            and self._num_held_steps < self._stream_interval
        ):
            return True
        self._num_held_steps = 0
        return False

    def take_output(self) -> StepTokens | None:
        """What has gathered for the API process, with statistics where they are due."""
        outbox = self._live.outbox
        if not outbox.keys:
            return None
        self._live.outbox = Outbox()
        now = time.monotonic()
        if not outbox.has_finish and now < self._next_stats:
            return outbox.message(None)
        self._next_stats = now + STATS_INTERVAL_SECONDS
        return outbox.message(self._stats())

    def _build(self) -> BuiltStep | None:
        """Schedules a step, while the device computes the one that was begun; None if nothing can
        run now."""
        schedule = self._scheduler.schedule(self._blocks)
        self.clock.mark(SCHEDULE)
        for preempted in schedule.preempted:
            self._builder.free_row(cast(Request, preempted))
        self._num_preemptions += len(schedule.preempted)
        if not schedule.entries:
            if not self._under_way and self._begun is None and not schedule.preempted:
                raise EngineError(
                    f"scheduler {self._scheduler.name!r} lets {len(self._scheduler)} requests wait "
                    "though no step is under way"
                )
            return None
        # Requests are made in this room only, so a scheduler's are ours.
        step = self._builder.build(cast(Entries, schedule.entries))
        for request in step.last_sampled:
            self._live.retire(request)
        self.clock.mark(BUILD)
        return step

    def _enqueue(self, step: BuiltStep) -> None:
        began = self.clock.last
        if step.constrained:
            self._executor.begin(step.batch)
            self._begun, self._begun_at = step, began
        else:
            pending = self._executor.execute(step.batch)
            self._under_way.append(StepUnderWay(step, pending, began))
        self.clock.mark(LAUNCH)

    def _jump(self) -> None:
        """Lets requests go on with what their grammars force, without sampling it."""
        for request, ids in self._constrained.take_jumps():
            if not request.ended:
                self._builder.give(request, ids)
                if not request.num_in_flight:
                    self._outcomes.take_given(request)

    def _finish_begun(self) -> None:
        """Fills the masks of the step that was begun, while the device computes it, and enqueues
        its rest. Requests end here for which the grammar leaves nothing to sample."""
        step, self._begun = self._begun, None
        assert step is not None
        masks, ended = self._constrained.masks(step)
        for request, error in ended:
            if error is not None:
                self._live.fail(request, error)
            else:
                self._live.end(request, FinishReason.STOP)
        self.clock.mark(MASK)
        pending = self._executor.finish(masks)
        self._under_way.append(StepUnderWay(step, pending, self._begun_at))
        self.clock.mark(LAUNCH)

    def _collect_all(self) -> None:
        while self._under_way:
            self._outcomes.collect(self._under_way.popleft())

    def _stats(self) -> EngineStats:
        num_waiting = self._scheduler.num_waiting
        return EngineStats(
            num_running=len(self._scheduler) - num_waiting,
            num_waiting=num_waiting,
            num_blocks_used=self._blocks.num_blocks - 1 - self._blocks.num_free,
            num_preemptions=self._num_preemptions,
            prefix_cache_queries=self._blocks.num_queried_tokens,
            prefix_cache_hits=self._blocks.num_hit_tokens,
            num_prompt_tokens=self._outcomes.num_prompt_tokens,
            num_generation_tokens=self._outcomes.num_generation_tokens,
            num_steps=self._builder.num_built,
            stage_seconds=self.clock.stage_seconds(),
            steps_over=self.clock.num_steps(),
            step_seconds=self.clock.step_seconds(),
            steps_by_size=self.clock.steps_by_size(),
            num_step_tokens=self.clock.num_tokens,
        )
