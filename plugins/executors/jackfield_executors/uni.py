"""One worker, in the engine's own process."""

from __future__ import annotations

from typing import ClassVar

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.work import (
    CanSleep,
    KVCapacity,
    PendingStep,
    ScheduledBatch,
    TokenMasks,
    Worker,
)
from jackfield.errors import ConfigError, RequestError
from jackfield.registry import Registry


class UniExecutor:
    """Calls the worker directly; nothing is between the step loop and the device."""

    name: ClassVar[str] = "uni"
    api_version: ClassVar[int] = 1

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def start(self, plan: WorkerPlan) -> KVCapacity:
        """Finds the worker class by the plan's name, and starts it."""
        if plan.tensor_parallel_size != 1:
            raise ConfigError(
                "executor 'uni' runs one worker; tensor_parallel_size is "
                f"{plan.tensor_parallel_size}: choose another executor"
            )
        worker: Worker = Registry.for_plan(plan).make("workers", plan.worker)
        self._worker = worker
        return worker.start(plan)

    def execute(self, batch: ScheduledBatch) -> PendingStep:
        """Enqueues the step on the worker."""
        assert self._worker is not None
        return self._worker.execute(batch)

    def begin(self, batch: ScheduledBatch) -> None:
        """Enqueues the step up to its logits."""
        assert self._worker is not None
        self._worker.begin(batch)

    def finish(self, masks: TokenMasks) -> PendingStep:
        """Enqueues the rest of it."""
        assert self._worker is not None
        return self._worker.finish(masks)

    def sleep(self, level: int) -> None:
        """Puts the worker to sleep; ``RequestError`` if it cannot."""
        self._able().sleep(level)

    def wake_up(self) -> None:
        """Wakes the worker up."""
        self._able().wake_up()

    def _able(self) -> CanSleep:
        assert self._worker is not None
        if not isinstance(self._worker, CanSleep):
            raise RequestError(f"worker {self._worker.name!r} cannot sleep")
        return self._worker

    def stop(self) -> None:
        """Stops the worker if it was made."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
