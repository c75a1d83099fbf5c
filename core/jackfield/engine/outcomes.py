"""What a step has made: tokens appended, ends seen, logprobs and vectors passed on."""

from __future__ import annotations

from dataclasses import dataclass

from jackfield.contracts.messages import FinishReason, RequestLogprobs, RequestPooled
from jackfield.contracts.work import PendingStep, RowLogprobs, StepOutput
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.constrained import ConstrainedRequests
from jackfield.engine.live_requests import LiveRequests
from jackfield.engine.outbox import NO_TOKEN
from jackfield.engine.pooled_step import pooled_parts
from jackfield.engine.request import Request
from jackfield.engine.step_builder import BuiltStep
from jackfield.engine.step_clock import COLLECT, WAIT, StepClock
from jackfield.errors import RequestError


@dataclass(frozen=True, slots=True)
class StepUnderWay:
    """An enqueued step, and when its launch began."""

    built: BuiltStep
    pending: PendingStep
    began: float


class Outcomes:
    """Takes in steps, in the order in which they were enqueued."""

    def __init__(
        self,
        live: LiveRequests,
        blocks: BlockManager,
        constrained: ConstrainedRequests,
        clock: StepClock,
    ) -> None:
        self.num_prompt_tokens = 0
        self.num_generation_tokens = 0
        self._live = live
        self._blocks = blocks
        self._constrained = constrained
        self._clock = clock

    def collect(self, step: StepUnderWay) -> None:
        """Takes in what a step made. Waits for the device."""
        built = step.built
        self._clock.mark(COLLECT)
        output = step.pending.wait()
        self._clock.mark(WAIT)
        self._clock.step_over(step.began, built.num_tokens, built.has_prompts)
        if output.failed or output.logprobs:
            self._note_rows(built, output)
        if output.pooled is not None:
            self._collect_pooled(built, output)
        else:
            self._collect_tokens(built, output)
        self._clock.mark(COLLECT)

    def _collect_tokens(self, step: BuiltStep, output: StepOutput) -> None:
        """A step's tokens: appends, ends what has ended."""
        outbox = self._live.outbox
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
                        self._live.end(request, finish, token)
                        self._note_if_first(request, num_known)
                        continue
                if request.constraint is not None:
                    self._constrained.accept(request, token)
                add_key(request.key)
                add_token(token)
                add_finish(0)
                if num_known == request.num_prompt_tokens + 1:
                    self._note_if_first(request, num_known)
                if request.given:
                    self._append_given(request)
            except Exception as error:
                self._live.fail(request, error)
        self.num_generation_tokens += len(outbox.keys) - num_before

    def _collect_pooled(self, step: BuiltStep, output: StepOutput) -> None:
        """Sends vectors, and ends the requests whose prompt is computed."""
        for part in pooled_parts(output, step.samples):
            request = step.requests[part.place]
            if request.ended:
                continue
            self._live.outbox.pooled.append(RequestPooled(request.key, part.data, part.first))
            if not part.is_last:
                self._live.outbox.add(request.key, NO_TOKEN, FinishReason.RUNNING)
                continue
            self._live.end(request, FinishReason.STOP)
            self._live.outbox.note_first(request)
            self.num_prompt_tokens += request.num_prompt_tokens

    def take_given(self, request: Request) -> None:
        """What a grammar forces behind the known tokens of a request of which none is in flight."""
        num_before = len(self._live.outbox.keys)
        try:
            self._append_given(request)
        except Exception as error:
            self._live.fail(request, error)
        self.num_generation_tokens += len(self._live.outbox.keys) - num_before

    def _append_given(self, request: Request) -> None:
        given, request.given = request.given, []
        for token in given:
            request.token_ids.append(token)
            self._constrained.accept(request, token)
            self._live.outbox.add(request.key, token, FinishReason.RUNNING)
        if len(request.token_ids) >= request.next_full:
            self._blocks.register(request)

    def _note_if_first(self, request: Request, num_known: int) -> None:
        if num_known == request.num_prompt_tokens + 1:
            self._live.outbox.note_first(request)
            self.num_prompt_tokens += request.num_prompt_tokens

    def _note_rows(self, step: BuiltStep, output: StepOutput) -> None:
        """Failures and logprobs, which come by row, to their requests."""
        by_row = dict(zip(step.rows, zip(step.requests, step.samples, strict=True), strict=True))
        for row, message in output.failed:
            request, _ = by_row[row]
            if not request.ended:
                self._blocks.forget(request)
                self._live.fail(request, RequestError(message))
        for entry in output.logprobs:
            request, sampled = by_row[entry.row]
            if request.ended:
                continue
            try:
                self._note_logprobs(request, entry, sampled)
            except Exception as error:
                self._live.fail(request, error)

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
        self._live.outbox.add_logprobs(RequestLogprobs(request.key, output, prompt, start))
        if not sampled:
            self._live.outbox.add(request.key, NO_TOKEN, FinishReason.RUNNING)


def _finish_reason(request: Request, token: int, num_known: int) -> FinishReason:
    if token in request.stop_token_ids and num_known >= request.min_num_tokens:
        return FinishReason.STOP
    if num_known >= request.max_num_tokens:
        return FinishReason.LENGTH
    return FinishReason.RUNNING
