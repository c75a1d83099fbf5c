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
  before the step that follows, so that the device always has a forward pass to do.

An exception that concerns one request ends that request with ``FinishReason.ERROR``; any other
leaves ``step`` and ends the engine.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import cast

from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    EngineStats,
    FinishReason,
    RequestFailed,
    RequestLogprobs,
    RequestPooled,
    ResetPrefixCache,
    StepTokens,
)
from jackfield.contracts.scheduling import Scheduler
from jackfield.contracts.work import (
    Executor,
    PendingStep,
    RowLogprobs,
    StepOutput,
)
from jackfield.engine.admission import RequestBounds, make_request
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.constrained import ConstrainedRequests
from jackfield.engine.grammar_compiler import GrammarCompiler
from jackfield.engine.outbox import NO_TOKEN, Outbox
from jackfield.engine.pooled_step import pooled_parts
from jackfield.engine.request import Request
from jackfield.engine.step_builder import BuiltStep, Entries, StepBuilder
from jackfield.errors import RAISED, EngineError, RequestError

log = logging.getLogger(__name__)

STATS_INTERVAL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class StepUnderWay:
    """An enqueued step: whose tokens come out of it, in the order of the batch."""

    pending: PendingStep
    requests: list[Request]
    rows: list[int]
    samples: list[bool]


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
        self.requests: dict[int, Request] = {}
        self._executor = executor
        self._scheduler = scheduler
        self._blocks = blocks
        self._bounds = bounds
        self._steps_in_flight = steps_in_flight
        self._builder = StepBuilder(scheduler.name, blocks, max_num_seqs, max_num_batched_tokens)
        self._under_way: deque[StepUnderWay] = deque()
        self._begun: BuiltStep | None = None
        """The newest step, where it waits for masks; all others are in ``_under_way``."""
        self._outbox = Outbox()
        self._constrained = ConstrainedRequests(grammars, bounds.logits_width, executor)
        self._stream_interval = stream_interval
        self._num_held_steps = 0
        self._next_stats = 0.0
        self._num_preemptions = 0
        self._num_prompt_tokens = 0
        self._num_generation_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do."""
        return bool(
            self._under_way
            or self._begun is not None
            or self._outbox.keys
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

    # --- messages ------------------------------------------------------------------------

    def take_in(self, message: AddRequest | AbortRequests | ResetPrefixCache) -> None:
        """Obeys a message; a request that cannot be served fails by itself."""
        if isinstance(message, AddRequest):
            self._add(message)
        elif isinstance(message, AbortRequests):
            for key in message.keys:
                request = self.requests.get(key)
                if request is not None:
                    self._end(request, FinishReason.ABORT)
        else:
            self._blocks.reset()

    def abort_all(self) -> None:
        """Ends every request with ``FinishReason.ABORT``."""
        for request in list(self.requests.values()):
            self._end(request, FinishReason.ABORT)

    def _add(self, message: AddRequest) -> None:
        try:
            if message.key in self.requests:
                raise RequestError(f"request {message.key} is in the engine already")
            request = make_request(message, self._bounds)
            if request.sampling.grammar is None:
                self._scheduler.add(request)
                request.in_scheduler = True
            else:
                self._constrained.add(request)
        except RAISED as error:
            self._report_failure(message.key, error)
            return
        self.requests[request.key] = request

    def _take_in_constrained(self) -> None:
        """Requests whose grammar has been compiled go on; others fail by themselves."""
        for request, error in self._constrained.take_ready():
            if request.ended:
                continue
            if error is not None:
                self._fail(request, error)
                continue
            try:
                self._scheduler.add(request)
                request.in_scheduler = True
            except RAISED as failure:
                self._fail(request, failure)

    # --- steps ---------------------------------------------------------------------------

    def step(self) -> StepTokens | None:
        """Enqueues the next step and takes in the oldest one where enough are under way.

        Returns what there is to tell. O(requests in the step) in Python, about 0.2 ms for 256
        decodes (``bench/engine_step.py``). Waits for the device where it is behind.
        """
        if len(self._constrained):
            self._take_in_constrained()
        if self._begun is not None:
            self._finish_begun()
        enqueued = bool(len(self._scheduler)) and self._enqueue()
        if self._begun is not None:
            self._collect_all()
        elif self._under_way and (not enqueued or len(self._under_way) >= self._steps_in_flight):
            self._collect(self._under_way.popleft())
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
        outbox = self._outbox
        goes_on = bool(self._under_way or self._begun or len(self._scheduler))
        if (
            goes_on
            and not (outbox.has_finish or outbox.has_first)
            and self._num_held_steps < self._stream_interval
        ):
            return True
        self._num_held_steps = 0
        return False

    def take_output(self) -> StepTokens | None:
        """What has gathered for the API process, with statistics where they are due."""
        outbox = self._outbox
        if not outbox.keys:
            return None
        self._outbox = Outbox()
        now = time.monotonic()
        if not outbox.has_finish and now < self._next_stats:
            return outbox.message(None)
        self._next_stats = now + STATS_INTERVAL_SECONDS
        return outbox.message(self._stats())

    def _enqueue(self) -> bool:
        """Schedules and enqueues a step; False if nothing can run now."""
        schedule = self._scheduler.schedule(self._blocks)
        for preempted in schedule.preempted:
            self._builder.free_row(cast(Request, preempted))
        self._num_preemptions += len(schedule.preempted)
        if not schedule.entries:
            if not self._under_way and not schedule.preempted:
                raise EngineError(
                    f"scheduler {self._scheduler.name!r} lets {len(self._scheduler)} requests wait "
                    "though no step is under way"
                )
            return False
        # Requests are made in this room only, so a scheduler's are ours.
        step = self._builder.build(cast(Entries, schedule.entries))
        for request in step.last_sampled:
            self._retire(request)
        if step.constrained:
            self._executor.begin(step.batch)
            self._begun = step
        else:
            self._add_under_way(step, self._executor.execute(step.batch))
        return True

    def _add_under_way(self, step: BuiltStep, pending: PendingStep) -> None:
        self._under_way.append(StepUnderWay(pending, step.requests, step.rows, step.samples))

    def _finish_begun(self) -> None:
        """Fills the masks of the step that was begun, while the device computes it, and enqueues
        its rest. Requests end here for which the grammar leaves nothing to sample."""
        step, self._begun = self._begun, None
        assert step is not None
        masks, ended = self._constrained.masks(step)
        for request, error in ended:
            if error is not None:
                self._fail(request, error)
            else:
                self._end(request, FinishReason.STOP)
        self._add_under_way(step, self._executor.finish(masks))

    # --- outcomes ------------------------------------------------------------------------

    def _collect_all(self) -> None:
        while self._under_way:
            self._collect(self._under_way.popleft())

    def _collect(self, step: StepUnderWay) -> None:
        """Takes in what a step made. Waits for the device."""
        output = step.pending.wait()
        if output.failed or output.logprobs:
            self._note_rows(step, output)
        if output.pooled is not None:
            self._collect_pooled(step, output)
        else:
            self._collect_tokens(step, output)

    def _collect_tokens(self, step: StepUnderWay, output: StepOutput) -> None:
        """A step's tokens: appends, ends what has ended."""
        outbox = self._outbox
        add_key, add_token = outbox.keys.append, outbox.token_ids.append
        add_finish = outbox.finish.append
        num_before = len(outbox.keys)
        for request, token, sampled in zip(
            step.requests, output.token_ids.tolist(), step.samples, strict=True
        ):
            if not sampled or request.ended:
                continue
            try:
                request.num_in_flight -= 1
                request.token_ids.append(token)
                num_known = len(request.token_ids)
                if num_known >= request.next_full:
                    self._blocks.register(request)
                if num_known >= request.max_num_tokens or token in request.stop_token_ids:
                    finish = _finish_reason(request, token, num_known)
                    if finish:
                        self._end(request, finish, token)
                        self._note_if_first(request, num_known)
                        continue
                if request.constraint is not None:
                    self._constrained.accept(request, token)
                add_key(request.key)
                add_token(token)
                add_finish(0)
                if num_known == request.num_prompt_tokens + 1:
                    self._note_if_first(request, num_known)
            except Exception as error:
                self._fail(request, error)
        self._num_generation_tokens += len(outbox.keys) - num_before

    def _collect_pooled(self, step: StepUnderWay, output: StepOutput) -> None:
        """Sends vectors, and ends the requests whose prompt is computed."""
        for part in pooled_parts(output, step.samples):
            request = step.requests[part.place]
            if request.ended:
                continue
            self._outbox.pooled.append(RequestPooled(request.key, part.data, part.first))
            if not part.is_last:
                self._outbox.add(request.key, NO_TOKEN, FinishReason.RUNNING)
                continue
            self._end(request, FinishReason.STOP)
            self._outbox.note_first(request)
            self._num_prompt_tokens += request.num_prompt_tokens

    def _note_if_first(self, request: Request, num_known: int) -> None:
        if num_known == request.num_prompt_tokens + 1:
            self._outbox.note_first(request)
            self._num_prompt_tokens += request.num_prompt_tokens

    def _note_rows(self, step: StepUnderWay, output: StepOutput) -> None:
        """Failures and logprobs, which come by row, to their requests."""
        by_row = dict(zip(step.rows, zip(step.requests, step.samples, strict=True), strict=True))
        for row, message in output.failed:
            request, _ = by_row[row]
            if not request.ended:
                self._blocks.forget(request)
                self._fail(request, RequestError(message))
        for entry in output.logprobs:
            request, sampled = by_row[entry.row]
            if request.ended:
                continue
            try:
                self._note_logprobs(request, entry, sampled)
            except Exception as error:
                self._fail(request, error)

    def _note_logprobs(self, request: Request, entry: RowLogprobs, sampled: bool) -> None:
        # After a preemption the prompt is computed again; what was told once is left out.
        num_known = max(0, request.next_prompt_logprob - entry.prompt_start)
        prompt = list(entry.prompt[num_known:])
        start = entry.prompt_start + num_known
        if prompt:
            request.next_prompt_logprob = start + len(prompt)
        output = [entry.output] if sampled and entry.output is not None else []
        if not prompt and not output:
            return
        self._outbox.logprobs.append(RequestLogprobs(request.key, output, prompt, start))
        if not sampled:
            self._outbox.add(request.key, NO_TOKEN, FinishReason.RUNNING)

    # --- the life of a request --------------------------------------------------------------

    def _retire(self, request: Request) -> None:
        """The request computes nothing any more; what it held is free for the next step."""
        if request.in_scheduler:
            request.in_scheduler = False
            self._scheduler.finish(request)
        self._blocks.free(request)
        self._builder.free_row(request)

    def _end(self, request: Request, finish: FinishReason, token: int = NO_TOKEN) -> None:
        """The one way out of the engine."""
        request.ended = True
        del self.requests[request.key]
        self._retire(request)
        self._outbox.add(request.key, token, finish)

    def _fail(self, request: Request, error: BaseException) -> None:
        if request.ended:
            # It failed while it was ending: its last entry is out already.
            log.exception("request %d: failed at its end", request.key, exc_info=error)
            return
        request.ended = True
        del self.requests[request.key]
        self._retire(request)
        self._report_failure(request.key, error)

    def _report_failure(self, key: int, error: BaseException) -> None:
        param = None
        if isinstance(error, RequestError):
            message, param = error.message, error.param
        else:
            log.error("request %d failed", key, exc_info=error)
            message = f"the engine could not process this request ({type(error).__name__})"
        self._outbox.add(key, NO_TOKEN, FinishReason.ERROR)
        self._outbox.failed.append(RequestFailed(key, message, param))

    def _stats(self) -> EngineStats:
        num_waiting = self._scheduler.num_waiting
        return EngineStats(
            num_running=len(self._scheduler) - num_waiting,
            num_waiting=num_waiting,
            num_blocks_used=self._blocks.num_blocks - 1 - self._blocks.num_free,
            num_preemptions=self._num_preemptions,
            prefix_cache_queries=self._blocks.num_queried_tokens,
            prefix_cache_hits=self._blocks.num_hit_tokens,
            num_prompt_tokens=self._num_prompt_tokens,
            num_generation_tokens=self._num_generation_tokens,
            num_steps=self._builder.num_built,
        )


def _finish_reason(request: Request, token: int, num_known: int) -> FinishReason:
    if token in request.stop_token_ids and num_known >= request.min_num_tokens:
        return FinishReason.STOP
    if num_known >= request.max_num_tokens:
        return FinishReason.LENGTH
    return FinishReason.RUNNING
