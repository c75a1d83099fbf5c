"""A step under way: its ids and logprobs on their way to the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from jackfield.compute.logprobs import LogprobTensors
from jackfield.compute.transfer import SoFar, to_host
from jackfield.contracts.messages import TokenLogprobs
from jackfield.contracts.work import Int32Array, RowLogprobs, ScheduledBatch, StepOutput

NO_CHOICE = (
    "no token can be chosen: the logits are not finite, or the request's own rules forbid all"
)


@dataclass(frozen=True, slots=True)
class OutputLogprobs:
    """Logprobs of sampled tokens: of ``rows``, with ``num_tops`` most likely tokens each."""

    tensors: LogprobTensors
    rows: Sequence[int]
    num_tops: Sequence[int]


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Logprobs of prompt positions: ``counts[i]`` of ``rows[i]``, from ``starts[i]`` on."""

    tensors: LogprobTensors
    rows: Sequence[int]
    counts: Sequence[int]
    starts: Sequence[int]
    num_tops: Sequence[int]


class CopiedStep:
    """A ``PendingStep``; made right after the step was enqueued, when it starts its copies.

    ``ids`` int32 [N], one for each sampling sequence of ``batch``, -1 where no token could be
    chosen; None if nothing was sampled. ``failed``: rows that failed before the step.
    """

    def __init__(
        self,
        batch: ScheduledBatch,
        ids: Tensor | None,
        output: OutputLogprobs | None = None,
        prompt: PromptLogprobs | None = None,
        failed: tuple[tuple[int, str], ...] = (),
    ) -> None:
        self._rows, self._samples, self._failed = batch.rows, batch.samples, failed
        self._ids = None if ids is None else to_host(ids)
        self._output = output
        self._output_tensors = None if output is None else output.tensors.start_copy()
        self._prompt = prompt
        self._prompt_tensors = None if prompt is None else prompt.tensors.start_copy()
        self._computed = SoFar(ids, None if prompt is None else prompt.tensors.ranks)

    def wait(self) -> StepOutput:
        """Blocks until the copies have arrived; later steps go on meanwhile."""
        self._computed.wait()
        token_ids: Int32Array = np.zeros(len(self._rows), dtype=np.int32)
        failed = self._failed
        if self._ids is not None:
            ids = self._ids.numpy()
            if ids.min() < 0:
                known = {row for row, _ in failed}
                bad = [row for row in self._rows[self._samples][ids < 0].tolist()]
                failed += tuple((row, NO_CHOICE) for row in bad if row not in known)
            token_ids[self._samples] = ids
        return StepOutput(token_ids, self._logprobs(), failed)

    def _logprobs(self) -> tuple[RowLogprobs, ...]:
        if self._output is None and self._prompt is None:
            return ()
        outputs: dict[int, TokenLogprobs] = {}
        if self._output is not None and self._output_tensors is not None:
            values = self._output_tensors.values(self._output.num_tops)
            outputs = dict(zip(self._output.rows, values, strict=True))
        prompts = self._prompt_values()
        rows = [*prompts, *(row for row in outputs if row not in prompts)]
        nothing: tuple[tuple[TokenLogprobs, ...], int] = ((), 0)
        return tuple(RowLogprobs(row, outputs.get(row), *prompts.get(row, nothing)) for row in rows)

    def _prompt_values(self) -> dict[int, tuple[tuple[TokenLogprobs, ...], int]]:
        """Row -> (logprobs, position of the first)."""
        if self._prompt is None or self._prompt_tensors is None:
            return {}
        prompt = self._prompt
        tops = np.repeat(np.array(prompt.num_tops), np.array(prompt.counts)).tolist()
        values = iter(self._prompt_tensors.values(tops))
        return {
            row: (tuple(next(values) for _ in range(count)), start)
            for row, count, start in zip(prompt.rows, prompt.counts, prompt.starts, strict=True)
        }
