"""Workers that engine processes of the tests load by ``module:Class``."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.work import KVCapacity, ScheduledBatch
from jackfield.errors import CheckpointError
from jackfield.testing.simulated_worker import SimulatedStep, SimulatedWorker

LOADING_SECONDS = 60


class NotedWorker(SimulatedWorker):
    def start(self, plan: WorkerPlan) -> KVCapacity:
        print("a library that prints")
        capacity = super().start(plan)
        return KVCapacity(
            capacity.num_blocks, capacity.logits_width, capacity.steps_in_flight, ("a note",)
        )


class ModulesWorker(SimulatedWorker):
    """Says whether a module is there that nobody needs."""

    def start(self, plan: WorkerPlan) -> KVCapacity:
        while "colorsys" not in sys.modules:
            time.sleep(0.01)
        return dataclasses.replace(super().start(plan), notes=("colorsys is imported",))


class SlowWorker(SimulatedWorker):
    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        time.sleep(0.02)
        return super().execute(batch)


class ChattyWorker(SimulatedWorker):
    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        logging.getLogger(__name__).warning("x" * 4096)
        return super().execute(batch)


class BadCheckpointWorker(SimulatedWorker):
    def start(self, plan: WorkerPlan) -> KVCapacity:
        raise CheckpointError("model.safetensors is cut off:\n  tensor a.weight")


class BrokenWorker(SimulatedWorker):
    def start(self, plan: WorkerPlan) -> KVCapacity:
        raise ValueError("no such device\nand more")


class BrokenStepWorker(SimulatedWorker):
    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        raise ValueError("the device is lost")


class HangingWorker(SimulatedWorker):
    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        time.sleep(60)
        return super().execute(batch)


class PoisonedWorker(SimulatedWorker):
    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        if any(66 in row.token_ids[: row.num_prompt_tokens] for row in batch.admitted):
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(10)
        return super().execute(batch)


class SleepyWorker(SimulatedWorker):
    def sleep(self, level: int) -> None:
        self._blocks_before = self._kv
        self._kv = self._kv[:0]

    def wake_up(self) -> None:
        self._kv = np.zeros_like(self._blocks_before)


class _OnceFaulty(SimulatedWorker):
    """Fails at step ``FAULT_AT``, unless ``FAULT_FILE`` says that it has happened already."""

    def start(self, plan: WorkerPlan) -> KVCapacity:
        self.left = int(os.environ["FAULT_AT"])
        return super().start(plan)

    def strikes(self) -> bool:
        self.left -= 1
        happened = Path(os.environ["FAULT_FILE"])
        if self.left or happened.exists():
            return False
        happened.touch()
        return True


class FaultyStepWorker(_OnceFaulty):
    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        if self.strikes():
            raise ValueError("injected")
        return super().execute(batch)


class FaultySamplerWorker(_OnceFaulty):
    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        step = super().execute(batch)
        if self.strikes():
            failed = ((int(batch.rows[0]), "the sampler failed for this row"),)
            return SimulatedStep(dataclasses.replace(step.wait(), failed=failed))
        return step


class ExitingWorker(SimulatedWorker):
    def start(self, plan: WorkerPlan) -> KVCapacity:
        sys.exit(7)


class CrashingWorker(SimulatedWorker):
    def start(self, plan: WorkerPlan) -> KVCapacity:
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(10)
        raise AssertionError


class LoadingWorker(SimulatedWorker):
    def start(self, plan: WorkerPlan) -> KVCapacity:
        time.sleep(LOADING_SECONDS)
        return super().start(plan)
