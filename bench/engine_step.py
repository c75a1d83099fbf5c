"""Host work of one engine step with a device that costs nothing.

``python bench/engine_step.py [running]``: microseconds a step for decodes alone.
"""

from __future__ import annotations

import sys
import time
from typing import ClassVar

import numpy as np

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.messages import AddRequest
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import SchedulerLimits
from jackfield.contracts.work import KVCapacity, ScheduledBatch, StepOutput
from jackfield.engine.admission import RequestBounds
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.channel import FrameEncoder
from jackfield.engine.prefix_hash import PrefixHasher
from jackfield.engine.step_loop import EngineCore
from jackfield.testing.simulated_worker import SimulatedStep
from jackfield_schedulers.fcfs import FcfsScheduler

NUM_STEPS = 400
BLOCK_SIZE = 16


class NoExecutor:
    name: ClassVar[str] = "none"
    api_version: ClassVar[int] = 1

    def start(self, plan: WorkerPlan) -> KVCapacity:
        raise AssertionError("not started")

    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        return SimulatedStep(StepOutput(np.full(len(batch.rows), 17, dtype=np.int32)))

    def stop(self) -> None: ...


def make_core(num_running: int) -> EngineCore:
    limits = SchedulerLimits(num_running, 8192, 8192)
    num_blocks = num_running * 100 + 1
    core = EngineCore(
        NoExecutor(),
        FcfsScheduler(limits),
        BlockManager(num_blocks, BLOCK_SIZE, PrefixHasher("sha256", BLOCK_SIZE, "m")),
        RequestBounds(8192, 1000, num_blocks * BLOCK_SIZE, 8192),
        max_num_seqs=num_running,
        max_num_batched_tokens=8192,
        steps_in_flight=2,
    )
    for key in range(num_running):
        prompt = np.array([key] * 100, dtype="<i4").tobytes()
        sampling = TokenSampling(stop_token_ids=(1, 2))
        core.take_in(AddRequest(key, prompt, sampling, 1400, time.monotonic()))
    for _ in range(12):
        core.step()
    return core


def main() -> None:
    num_running = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    core = make_core(num_running)
    encoder = FrameEncoder()
    times = []
    for _ in range(NUM_STEPS):
        begin = time.perf_counter()
        tokens = core.step()
        if tokens is not None:
            encoder.encode(tokens)
        times.append(time.perf_counter() - begin)
    times.sort()
    print(
        f"{num_running} decodes: median {times[NUM_STEPS // 2] * 1e6:.0f} us, "
        f"fastest {times[0] * 1e6:.0f} us, 99 % within {times[NUM_STEPS * 99 // 100] * 1e6:.0f} us"
    )


if __name__ == "__main__":
    main()
