"""From the logits of a step to its ids: every rule that its rows have, and the choice."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jackfield.compute import ops
from jackfield.compute.logit_rules import LogitRules
from jackfield.compute.logits_processors import Failures, LogitsProcessors
from jackfield.compute.logprobs import logprobs_of
from jackfield.compute.pending import OutputLogprobs
from jackfield.compute.row_state import CHANGES_LOGITS, RowFlag, RowState
from jackfield.compute.sampler import (
    GREEDY,
    SamplingMode,
    Way,
    choose_by_kernels,
    sample,
    sampling_mode,
)
from jackfield.compute.step import Step, StepSampling
from jackfield.compute.thinking_budget import force_ends
from jackfield.compute.token_masks import MaskRoom
from jackfield.compute.transfer import Uploads
from jackfield.contracts.work import AdmittedRow


class StepSampler:
    """Samples for the rows of ``state``. ``dtype``: the model's."""

    def __init__(self, state: RowState, uploads: Uploads, dtype: torch.dtype) -> None:
        self._state, self._uploads, self._dtype = state, uploads, dtype
        self._rules = LogitRules(state, uploads)
        self._processors: LogitsProcessors | None = None
        self._logits_width = 0
        self._room: MaskRoom | None = None

    def warm_up(self, width: int) -> None:
        """Launches each kernel that a GPU samples with from logits [N, ``width``], in the model's
        dtype and in float32, which rules leave: for the dummy row."""
        state, device = self._state, self._state.token_ids.device
        row = torch.full((1,), state.dummy_row, dtype=torch.int64, device=device)
        masks = MaskRoom(1, width, device)
        for dtype in (self._dtype, torch.float32):
            logits = torch.zeros((1, width), dtype=dtype, device=device)
            masks.apply(logits)
            for mode in (GREEDY, SamplingMode(Way.WHOLE), SamplingMode(Way.NUCLEUS)):
                self.choose(logits, row, torch.zeros_like(row), mode)

    def start(self, logits_width: int, processors: LogitsProcessors | None) -> None:
        """Called once, before the first step of a request."""
        self._logits_width, self._processors = logits_width, processors

    @property
    def masks(self) -> MaskRoom:
        """Where masks lie; made when somebody asks."""
        if self._room is None:
            num_rows, device = len(self._state.flags) - 1, self._state.token_ids.device
            self._room = MaskRoom(num_rows, self._logits_width, device)
        return self._room

    def admit(self, admitted: tuple[AdmittedRow, ...]) -> Failures:
        """New rows, whose state is written. Those that fail."""
        return () if self._processors is None else self._processors.admit(admitted)

    def wanted(self, step: Step) -> StepSampling | None:
        """What the step samples; None: nothing."""
        batch = step.batch
        rows, positions = batch.rows, batch.first_positions + batch.num_tokens
        if not step.is_decode:
            rows, positions = rows[batch.samples], positions[batch.samples]
        if not len(rows):
            return None
        flags = self._state.flags_of_rows(rows, positions)
        mode = sampling_mode(flags, int(self._state.top_k[rows].max(initial=0)))
        return StepSampling(rows, positions, flags, mode)

    def sample(
        self, step: Step, sampling: StepSampling, masked: bool
    ) -> tuple[Tensor, OutputLogprobs | None]:
        """Samples with whatever the rows ask for: ids int32 [N], and logprobs of some."""
        logits, targets, rows = step.logits, step.targets, sampling.rows
        assert logits is not None and targets is not None
        raw, index, asked = None, None, np.empty(0, dtype=np.intp)
        if sampling.flags & RowFlag.LOGPROBS:
            asked = np.flatnonzero(self._state.flags[rows] & int(RowFlag.LOGPROBS))
            index = self._uploads.upload(asked.astype(np.int32)).long()
            raw = logits.index_select(0, index)
        if sampling.flags & CHANGES_LOGITS:
            logits = logits.float()
            length = int(sampling.positions.max())
            self._rules.apply(logits, rows, *targets, length)
        if sampling.flags & RowFlag.PROCESSORS and self._processors is not None:
            logits = logits.float()
            step.failed += self._processors.apply(
                logits, rows, sampling.positions, torch.stack(targets)
            )
        if masked:
            self.masks.apply(logits)
        if sampling.flags & RowFlag.THINKING:
            near = np.flatnonzero(self._state.flags[rows] & int(RowFlag.THINKING))
            force_ends(
                logits, self._state, self._uploads, near.tolist(), rows, torch.stack(targets)
            )
        ids = self.choose(logits, *targets, sampling.mode)
        if raw is None or index is None:
            return ids, None
        asked_rows = rows[asked].tolist()
        num_tops = [self._state.sampling[row].logprobs or 0 for row in asked_rows]
        chosen = ids.index_select(0, index).long().clamp_min(0)
        tensors = logprobs_of(raw, chosen, max(num_tops))
        return ids, OutputLogprobs(tensors, asked_rows, num_tops)

    def choose(self, logits: Tensor, rows: Tensor, positions: Tensor, mode: SamplingMode) -> Tensor:
        """Samples and writes the ids to the rows. int32 [N], -1 where there is no choice."""
        # What rules have changed is float32, for which no kernels may be compiled yet.
        if mode == GREEDY and (logits.is_cuda or logits.dtype is self._dtype):
            return ops.choose_greedily(logits, rows, positions, self._state.token_ids)
        if mode.by_kernels and logits.is_cuda:
            return choose_by_kernels(logits, self._state, rows, positions, mode)
        sampling = None if mode == GREEDY else self._state.gather_sampling(rows)
        ids, possible = sample(logits, sampling, positions, mode)
        self._state.write_ids(rows, positions, ids)
        return torch.where(possible, ids, -1).to(torch.int32)
