"""The step loop: schedule, execute one step ahead of the device, hand out tokens.

With two steps in flight, step N+1 is scheduled and enqueued while the device computes step N;
its input tokens are still on the device then. What follows from that:

- A request whose last token (``max_tokens``) is sampled by an enqueued step leaves the
  scheduler, its row and its blocks at once: the device computes steps in order, so whoever
  gets them next writes later.
- A stop token is seen one step late; the token sampled meanwhile is discarded.
- A preempted request may have a token in flight; it is appended when it arrives.

An exception that concerns one request ends that request with ``FinishReason.ERROR``; any other
leaves ``step`` and ends the engine.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    EngineStats,
    FinishReason,
    RequestFailed,
    RequestLogprobs,
    ResetPrefixCache,
    StepTokens,
)
from jackfield.contracts.scheduling import Scheduler
from jackfield.contracts.work import (
    AdmittedRow,
    Executor,
    PendingStep,
    RowLogprobs,
    ScheduledBatch,
    StepOutput,
)
from jackfield.engine.admission import RequestBounds, make_request
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.outbox import NO_TOKEN, Outbox
from jackfield.engine.request import NO_ROW, Request
from jackfield.errors import EngineError, RequestError

log = logging.getLogger(__name__)

STATS_INTERVAL_SECONDS = 0.25

Entries = Sequence[tuple[Request, int]]


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
    ) -> None:
        self.requests: dict[int, Request] = {}
        self._executor = executor
        self._scheduler = scheduler
        self._blocks = blocks
        self._bounds = bounds
        self._max_num_batched_tokens = max_num_batched_tokens
        self._steps_in_flight = steps_in_flight
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self._under_way: deque[StepUnderWay] = deque()
        self._outbox = Outbox()
        self._next_stats = 0.0
        self._num_enqueued = 0
        self._num_preemptions = 0
        self._num_prompt_tokens = 0
        self._num_generation_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do."""
        return bool(self._under_way or self._outbox.keys or len(self._scheduler))

    @property
    def num_free_rows(self) -> int:
        """Rows of the batch state that no request has."""
        return len(self._free_rows)

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
            self._scheduler.add(request)
        except Exception as error:
            self._report_failure(message.key, error)
            return
        request.in_scheduler = True
        self.requests[request.key] = request

    # --- steps ---------------------------------------------------------------------------

    def step(self) -> StepTokens | None:
        """Enqueues the next step and takes in the oldest one where enough are under way.

        Returns what there is to tell. O(requests in the step) in Python, about 0.2 ms for 256
        decodes (``bench/engine_step.py``). Waits for the device where it is behind.
        """
        enqueued = bool(len(self._scheduler)) and self._enqueue()
        if self._under_way and (not enqueued or len(self._under_way) >= self._steps_in_flight):
            self._collect(self._under_way.popleft())
        return self.take_output()

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
            self._free_row(cast(Request, preempted))
        self._num_preemptions += len(schedule.preempted)
        if not schedule.entries:
            if not self._under_way and not schedule.preempted:
                raise EngineError(
                    f"scheduler {self._scheduler.name!r} lets {len(self._scheduler)} requests wait "
                    "though no step is under way"
                )
            return False
        # Requests are made in this room only, so a scheduler's are ours.
        step, batch = self._build(cast(Entries, schedule.entries))
        pending = self._executor.execute(batch)
        self._under_way.append(StepUnderWay(pending, *step))
        return True

    def _build(
        self, entries: Entries
    ) -> tuple[tuple[list[Request], list[int], list[bool]], ScheduledBatch]:
        """The batch for the entries, and each request moved on by what the step will compute."""
        chunks = [entry for entry in entries if entry[1] != 1]
        if chunks:
            entries = [entry for entry in entries if entry[1] == 1] + chunks
        admitted: list[AdmittedRow] = []
        requests: list[Request] = []
        rows: list[int] = []
        firsts: list[int] = []
        samples: list[bool] = []
        last_sampled: list[Request] = []
        for request, num_tokens in entries:
            if request.row < 0:
                admitted.append(self._give_row(request))
            first = request.num_computed_tokens
            computed = first + num_tokens
            request.num_computed_tokens = computed
            requests.append(request)
            rows.append(request.row)
            firsts.append(first)
            if computed == request.num_tokens:
                samples.append(True)
                request.num_in_flight += 1
                request.num_tokens = computed = computed + 1
                if computed >= request.max_num_tokens:
                    last_sampled.append(request)
            else:
                samples.append(False)
        num_tokens_array = np.ones(len(rows), dtype=np.int32)
        if chunks:
            num_tokens_array[len(rows) - len(chunks) :] = [chunk[1] for chunk in chunks]
        self._check_total(int(num_tokens_array.sum()))
        self._num_enqueued += 1
        batch = ScheduledBatch(
            step=self._num_enqueued,
            admitted=tuple(admitted),
            rows=np.array(rows, dtype=np.int32),
            num_tokens=num_tokens_array,
            first_positions=np.array(firsts, dtype=np.int32),
            samples=np.array(samples, dtype=np.bool_),
            new_blocks=self._blocks.take_assignments(),
        )
        for request, _ in chunks:
            self._blocks.register(request)
        for request in last_sampled:
            self._retire(request)
        return (requests, rows, samples), batch

    def _check_total(self, num_tokens: int) -> None:
        if num_tokens > self._max_num_batched_tokens:
            raise EngineError(
                f"scheduler {self._scheduler.name!r} put {num_tokens} tokens into a step; "
                f"max_num_batched_tokens is {self._max_num_batched_tokens}"
            )

    # --- outcomes ------------------------------------------------------------------------

    def _collect(self, step: StepUnderWay) -> None:
        """Takes in a step's tokens: appends, ends what has ended. Waits for the device."""
        output = step.pending.wait()
        if output.failed or output.logprobs:
            self._note_rows(step, output)
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
                add_key(request.key)
                add_token(token)
                add_finish(0)
                if num_known == request.num_prompt_tokens + 1:
                    self._note_if_first(request, num_known)
            except Exception as error:
                self._fail(request, error)
        self._num_generation_tokens += len(outbox.keys) - num_before

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

    def _give_row(self, request: Request) -> AdmittedRow:
        if not self._free_rows:
            raise EngineError(f"scheduler {self._scheduler.name!r} runs more than max_num_seqs")
        request.row = self._free_rows.pop()
        if not request.first_scheduled:
            request.first_scheduled = time.monotonic()
            request.num_cached_tokens = request.num_computed_tokens
        return AdmittedRow(
            row=request.row,
            token_ids=np.array(request.token_ids, dtype=np.int32),
            num_prompt_tokens=request.num_prompt_tokens,
            sampling=request.sampling,
        )

    def _free_row(self, request: Request) -> None:
        if request.row >= 0:
            self._free_rows.append(request.row)
            request.row = NO_ROW

    def _retire(self, request: Request) -> None:
        """The request computes nothing any more; what it held is free for the next step."""
        if request.in_scheduler:
            request.in_scheduler = False
            self._scheduler.finish(request)
        if request.blocks:
            self._blocks.release(request)
        self._free_row(request)

    def _end(self, request: Request, finish: FinishReason, token: int = NO_TOKEN) -> None:
        """The one way out of the engine."""
        request.ended = True
        del self.requests[request.key]
        self._retire(request)
        self._outbox.add(request.key, token, finish)

    def _fail(self, request: Request, error: Exception) -> None:
        if request.ended:
            # It failed while it was ending: its last entry is out already.
            log.exception("request %d: failed at its end", request.key, exc_info=error)
            return
        request.ended = True
        del self.requests[request.key]
        self._retire(request)
        self._report_failure(request.key, error)

    def _report_failure(self, key: int, error: Exception) -> None:
        if isinstance(error, RequestError):
            message = str(error)
        else:
            log.error("request %d failed", key, exc_info=error)
            message = f"the engine could not process this request ({type(error).__name__})"
        self._outbox.add(key, NO_TOKEN, FinishReason.ERROR)
        self._outbox.failed.append(RequestFailed(key, message))

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
            num_steps=self._num_enqueued,
        )


def _finish_reason(request: Request, token: int, num_known: int) -> FinishReason:
    if token in request.stop_token_ids and num_known >= request.min_num_tokens:
        return FinishReason.STOP
    if num_known >= request.max_num_tokens:
        return FinishReason.LENGTH
    return FinishReason.RUNNING
