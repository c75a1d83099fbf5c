"""One worker, in the engine's own process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.work import (
    CanSleep,
    GivesBackBlocks,
    HasMaskRoom,
    Int32Array,
    KVCapacity,
    PendingStep,
    ScheduledBatch,
    TokenMasks,
    UsesIdleTime,
    Worker,
)
from jackfield.errors import ConfigError, RequestError
from jackfield.registry.workers import call_worker, make_worker


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
        self._worker = worker = make_worker(plan)
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

    def mask_room(self) -> Int32Array | None:
        """The worker's, if it has one."""
        return self._worker.mask_room() if isinstance(self._worker, HasMaskRoom) else None

    def use_idle_time(self) -> bool:
        """The worker's, if it has something to do."""
        return isinstance(self._worker, UsesIdleTime) and self._worker.use_idle_time()

    def give_back(self, blocks: Int32Array) -> None:
        """To the worker, if it can let go of memory."""
        if isinstance(self._worker, GivesBackBlocks):
            self._worker.give_back(blocks)

    def sleep(self, level: int) -> None:
        """Puts the worker to sleep; ``RequestError`` if it cannot."""
        self._able().sleep(level)

    def wake_up(self) -> None:
        """Wakes the worker up."""
        self._able().wake_up()

    def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> list[object]:
        """Calls the worker's method; nobody else has to be waited for."""
        assert self._worker is not None
        return [call_worker(self._worker, method, args, kwargs or {})]

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
