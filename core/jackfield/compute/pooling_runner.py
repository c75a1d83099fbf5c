"""One step of a pooling model: from the engine's batch to vectors, without waiting."""

from __future__ import annotations

from types import MappingProxyType

import torch

from jackfield.compute.batch import is_decode
from jackfield.compute.kv_cache import vocabulary_size
from jackfield.compute.kv_scales import Scales
from jackfield.compute.model_runner import ModelRunner
from jackfield.compute.pooler import PooledStep, Pooler
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.attention import AttentionBackend
from jackfield.contracts.model import Model
from jackfield.contracts.platform import Platform
from jackfield.contracts.work import PendingStep, ScheduledBatch

_LENGTHS = (2, 16, 32, 64, 128, 256, 288, 1024, 32768)
"""Prompts that between them launch every variant of the kernels."""


class PoolingRunner(ModelRunner):
    """The runner of a plan with a ``pooler``: nothing is sampled, nothing captured."""

    def __init__(
        self,
        plan: WorkerPlan,
        platform: Platform,
        model: Model,
        backend: AttentionBackend,
        device: torch.device,
        kv_scales: Scales = MappingProxyType({}),
    ) -> None:
        super().__init__(plan, platform, model, backend, device, kv_scales=kv_scales)
        assert plan.pooler is not None, "the plan of a pooling model says how"
        self._pooler = Pooler(plan.pooler, model, plan.max_num_seqs + 1, self._uploads)

    @torch.inference_mode()
    def execute(self, batch: ScheduledBatch) -> PendingStep:
        """Enqueues one step. On the CPU it is computed when this returns."""
        step = self._step(batch)
        return PooledStep(batch, self._vectors(batch), step.failed, self._pooler.spans(batch))

    def _vectors(self, batch: ScheduledBatch) -> torch.Tensor:
        if len(batch.rows) == 0:
            if len(batch.new_blocks):
                self._state.apply_blocks(batch.new_blocks)
            return torch.empty((0, 1), dtype=torch.float32, device=self._device)
        inputs = self._inputs(batch, is_decode(batch))
        hidden = self._model.forward(inputs.ids, inputs.attention.positions, inputs.attention)
        return self._pooler.pool(batch, hidden)

    def _trace(self) -> None:
        longest = min(self._plan.max_num_batched_tokens, self._plan.max_model_len)
        for length in sorted({min(n, longest) for n in _LENGTHS}):
            self._run_dummy(length, 0)

    def _run_alone(self, batch: ScheduledBatch) -> int:
        """Runs a step of one sequence that ends in it. The vocabulary's size."""
        self._state.admit(batch.admitted)
        self._vectors(batch)
        return vocabulary_size(self._plan.config)
