"""Decode steps on the CPU as recordings of their kernels, one for each number of sequences: what
captured graphs are on a GPU."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jackfield.compute.batch import StepInputs
from jackfield.compute.native.recording import Arena, NotRecordable, Recording
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.attention import AttentionBackend
from jackfield.contracts.model import Model

log = logging.getLogger(__name__)

_OFTEN = 4
"""Steps of a size before it is recorded, which takes as long as two or three of them."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    """``inputs`` are the tensors that the kernels read."""

    inputs: StepInputs
    recording: Recording

    def run(self, inputs: StepInputs) -> Tensor:
        for own, given in zip(_values(self.inputs), _values(inputs), strict=True):
            own.copy_(given)
        return self.recording.replay()


class RecordedDecodes:
    """For a model whose decode steps read nothing on the host, as captured graphs want them.

    A recording is used if it gives the same bits as the step did, which also shows that nothing
    else computes anything. Without one a model's steps are not recorded.
    """

    def __init__(self, model: Model, longest: int) -> None:
        self._model, self._longest = model, longest
        self._arena = Arena()
        self._seen: Counter[int] = Counter()
        self._steps: dict[int, _Recorded] = {}
        self._given_up = False

    def __len__(self) -> int:
        return len(self._steps)

    def logits(self, inputs: StepInputs) -> Tensor | None:
        """[N, V] of a decode step, until the next one; None: it is to be computed as usual."""
        size = len(inputs.ids)
        recorded = self._steps.get(size)
        if recorded is not None:
            return recorded.run(inputs)
        self._seen[size] += 1
        if self._given_up or self._seen[size] < _OFTEN:
            return None
        return self._record(inputs, size)

    def _record(self, inputs: StepInputs, size: int) -> Tensor | None:
        own = self._own(inputs)
        try:
            recording = Recording(self._arena, lambda: self._compute(own))
        except NotRecordable as reason:
            self._give_up(f"they use {reason}")
            return None
        logits = recording.replay()
        assert recording.result is not None
        if not torch.equal(_bits(logits), _bits(recording.result)):
            self._give_up("a repetition gives something else")
            return None
        recording.forget_result()
        self._steps[size] = _Recorded(own, recording)
        return logits

    def _compute(self, inputs: StepInputs) -> Tensor:
        batch = inputs.attention
        return self._model.compute_logits(self._model.forward(inputs.ids, batch.positions, batch))

    def _own(self, inputs: StepInputs) -> StepInputs:
        batch = inputs.attention
        attention = replace(
            batch,
            rows=batch.rows.clone(),
            seq_lens=batch.seq_lens.clone(),
            slots=batch.slots.clone(),
            positions=batch.positions.clone(),
            max_seq_len=self._longest,
            host_lens=None,
        )
        return replace(inputs, ids=inputs.ids.clone(), attention=attention)

    def _give_up(self, reason: str) -> None:
        self._given_up = True
        log.debug("decode steps are not recorded: %s", reason)


def recorded_decodes(
    plan: WorkerPlan, model: Model, backend: AttentionBackend
) -> RecordedDecodes | None:
    """None where the plan wants no recordings, or mixes something into the worker that may put
    weights elsewhere; and where the backend does not say that it can be recorded, by a method
    ``records`` of the model's layers."""
    records = getattr(backend, "records", None)
    if plan.enforce_eager or plan.worker_extension is not None or records is None:
        return None
    return RecordedDecodes(model, plan.max_model_len) if records(model.attention_specs) else None


def _values(inputs: StepInputs) -> tuple[Tensor, ...]:
    """What changes from step to step."""
    batch = inputs.attention
    return inputs.ids, batch.rows, batch.seq_lens, batch.slots, batch.positions


def _bits(x: Tensor) -> Tensor:
    return x.view(torch.uint8)
