"""A worker without a model: every step samples some ids at once.

``--worker-cls no_model:NoModelWorker`` with this folder on ``PYTHONPATH``: what is left of a
server is scheduler, sockets, text and HTTP, the cost of the service itself.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.work import KVCapacity, ScheduledBatch, StepOutput, TokenMasks
from jackfield.testing.simulated_worker import SimulatedStep

NUM_BLOCKS = 1 << 16
FIRST_ID, NUM_IDS = 256, 512
"""Ids of common tokens in most vocabularies: no special ones, no end of a sequence."""


class NoModelWorker:
    """Implements ``Worker``."""

    name: ClassVar[str] = "no_model"
    api_version: ClassVar[int] = 1

    def start(self, plan: WorkerPlan) -> KVCapacity:
        width = plan.config["vocab_size"]
        assert isinstance(width, int) and width >= FIRST_ID + NUM_IDS
        return KVCapacity(NUM_BLOCKS, width, steps_in_flight=1)

    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        ids = FIRST_ID + (batch.rows * 31 + batch.first_positions * 7) % NUM_IDS
        return SimulatedStep(StepOutput(ids.astype(np.int32)))

    def begin(self, batch: ScheduledBatch) -> None:
        """Never called: no traffic of the benchmark has a grammar."""
        raise NotImplementedError

    def finish(self, masks: TokenMasks) -> SimulatedStep:
        """Never called."""
        raise NotImplementedError

    def stop(self) -> None:
        """Holds nothing."""
