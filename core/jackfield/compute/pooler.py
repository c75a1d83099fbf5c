"""Hidden states to one vector a prompt, of its last token, its first, or the mean of all; or to
one a token."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jackfield.compute.transfer import SoFar, Uploads, to_host
from jackfield.config.plan import PoolerPlan
from jackfield.contracts.model import Model
from jackfield.contracts.work import Float32Array, Int32Array, ScheduledBatch, StepOutput

NOT_FINITE = "the model's output for this prompt is not finite"


class Pooler:
    """Pools the prompts that a step completes. A prompt may come in chunks: what earlier ones
    gave is kept in float32, a row of the batch state in a row of its own."""

    def __init__(self, plan: PoolerPlan, model: Model, num_rows: int, uploads: Uploads) -> None:
        self._plan = plan
        self._model = model
        self._num_rows = num_rows
        self._uploads = uploads
        self._kept: Tensor | None = None
        """[num_rows, hidden] float32: the first token's state, or the sum of all so far."""

    def pool(self, batch: ScheduledBatch, hidden: Tensor) -> Tensor:
        """Vectors float32 [N, D] of the N sequences that ``batch`` completes, or [T, D] of all its
        tokens; ``hidden`` [T, H] is the step's, or more. Enqueues only."""
        if self._plan.kind == "all":
            pooled = hidden[: batch.total_tokens]
        elif self._plan.kind == "last":
            last = np.cumsum(batch.num_tokens)[batch.samples] - 1
            pooled = hidden.index_select(0, self._upload(last))
        else:
            keep = self._keep_sums if self._plan.kind == "mean" else self._keep_firsts
            kept = keep(batch, hidden)
            pooled = kept.index_select(0, self._upload(batch.rows[batch.samples]))
        if self._plan.kind == "mean":
            counts = (batch.first_positions + batch.num_tokens)[batch.samples]
            pooled = pooled / self._upload(counts)[:, None]
        if self._plan.scores and len(pooled):
            return self._scored(pooled, hidden.dtype)
        return pooled.float()

    def spans(self, batch: ScheduledBatch) -> Int32Array | None:
        """``StepOutput.pooled_spans`` of the batch."""
        if self._plan.kind != "all":
            return None
        return np.stack([batch.first_positions, batch.num_tokens], axis=1)

    def _scored(self, pooled: Tensor, dtype: torch.dtype) -> Tensor:
        scores = self._model.compute_logits(pooled.to(dtype)).float()
        if not self._plan.token_ids:
            return scores
        return scores.index_select(1, self._upload(np.array(self._plan.token_ids)))

    def _keep_sums(self, batch: ScheduledBatch, hidden: Tensor) -> Tensor:
        kept = self._kept_for(hidden)
        begun = batch.rows[batch.first_positions == 0]
        kept.index_fill_(0, self._upload(begun), 0.0)
        rows = self._upload(np.repeat(batch.rows, batch.num_tokens))
        return kept.index_add_(0, rows, hidden[: batch.total_tokens].float())

    def _keep_firsts(self, batch: ScheduledBatch, hidden: Tensor) -> Tensor:
        begun = batch.first_positions == 0
        places = (np.cumsum(batch.num_tokens) - batch.num_tokens)[begun]
        firsts = hidden.index_select(0, self._upload(places)).float()
        return self._kept_for(hidden).index_copy_(0, self._upload(batch.rows[begun]), firsts)

    def _kept_for(self, hidden: Tensor) -> Tensor:
        if self._kept is None:
            shape = (self._num_rows, hidden.shape[1])
            self._kept = torch.zeros(shape, dtype=torch.float32, device=hidden.device)
        return self._kept

    def _upload(self, values: Int32Array) -> Tensor:
        return self._uploads.upload(values.astype(np.int32)).long()


class PooledStep:
    """A ``PendingStep`` of vectors; made right after the step was enqueued."""

    def __init__(
        self,
        batch: ScheduledBatch,
        pooled: Tensor,
        failed: tuple[tuple[int, str], ...],
        spans: Int32Array | None = None,
    ) -> None:
        self._batch, self._failed, self._spans = batch, failed, spans
        self._pooled = to_host(pooled)
        self._computed = SoFar(pooled)

    def wait(self) -> StepOutput:
        """Blocks until the vectors have arrived. One that is not finite fails its row."""
        self._computed.wait()
        pooled: Float32Array = self._pooled.numpy()
        failed, batch, spans = self._failed, self._batch, self._spans
        finite = np.isfinite(pooled).all(axis=1)
        if not finite.all():
            known = {row for row, _ in failed}
            rows = batch.rows[batch.samples] if spans is None else batch.rows.repeat(spans[:, 1])
            bad = sorted(set(rows[~finite].tolist()) - known)
            failed += tuple((row, NOT_FINITE) for row in bad)
        nothing = np.zeros(len(batch.rows), np.int32)
        return StepOutput(nothing, failed=failed, pooled=pooled, pooled_spans=spans)
