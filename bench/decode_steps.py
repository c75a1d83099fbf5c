"""Decode steps by themselves: milliseconds a step, and of each kernel, without an engine's process.

    python bench/decode_steps.py DIR [--batches 1,8,32,128,256] [--context 256] [options of serve]

A worker in this process is given 128 steps one behind the other, with ``context`` tokens in the
middle of them; the least of three times counts. What the pages hold does not matter, so that no
prompt is computed. On a GPU torch's profiler then says what kernels add up to: a kernel that starts
while the one before it still runs is counted from that one's end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter

import numpy as np
import torch

from jackfield.config.command_line import parse_arguments
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, PendingStep, ScheduledBatch
from jackfield.planning.plan import make_plan
from jackfield.registry import Registry
from jackfield_workers.device import DeviceWorker

STEPS, PROFILED = 128, 8


class Steps:
    """Enqueues decode steps of sequences that are ``context`` tokens long or nearly so."""

    def __init__(self, worker: DeviceWorker, plan: WorkerPlan, batch: int, context: int) -> None:
        self._worker, self._context = worker, context
        self._rows = np.arange(batch, dtype=np.int32)
        self._blocks = -(-(context + STEPS) // plan.block_size)

    def admit(self) -> None:
        """The sequences' tokens and blocks, and a step that needs them."""
        ids = np.arange(self._context, dtype=np.int32) % 1000
        admitted = tuple(
            AdmittedRow(int(row), ids, self._context, TokenSampling()) for row in self._rows
        )
        places = [
            (row, i, 1 + row * self._blocks + i) for row in self._rows for i in range(self._blocks)
        ]
        self._step(0, admitted, np.array(places, dtype=np.int32)).wait()

    def run(self, count: int) -> None:
        """Enqueues ``count`` steps and waits for the last."""
        none = np.empty((0, 3), dtype=np.int32)
        pending = [self._step(number, (), none) for number in range(count)]
        pending[-1].wait()

    def _step(
        self, number: int, admitted: tuple[AdmittedRow, ...], blocks: np.ndarray
    ) -> PendingStep:
        position = max(self._context - STEPS // 2 + number % STEPS, 0)
        size = len(self._rows)
        return self._worker.execute(
            ScheduledBatch(
                step=number,
                admitted=admitted,
                rows=self._rows,
                num_tokens=np.ones(size, dtype=np.int32),
                first_positions=np.full(size, position, dtype=np.int32),
                samples=np.ones(size, dtype=np.bool_),
                new_blocks=blocks,
            )
        )


def step_ms(steps: Steps) -> float:
    """Of the fastest of three runs."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        steps.run(STEPS)
        times.append((time.perf_counter() - begin) / STEPS * 1e3)
    return min(times)


def kernel_us(steps: Steps) -> dict[str, float]:
    """Microseconds a step by kernel, the longest first, and of nothing at all (``idle``)."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        steps.run(PROFILED)
    of_device = torch.autograd.DeviceType.CUDA
    ranges = [(e.time_range, e.name) for e in profile.events() if e.device_type == of_device]
    ranges.sort(key=lambda range_and_name: range_and_name[0].start)
    own, end = Counter[str](), ranges[0][0].start
    for range_, name in ranges:
        own["idle"] += max(0.0, range_.start - end)
        own[name[:60]] += max(0.0, range_.end - max(range_.start, end))
        end = max(end, range_.end)
    return {name: round(us / PROFILED, 1) for name, us in own.most_common()}


def started(options: list[str], longest: int) -> tuple[DeviceWorker, WorkerPlan]:
    """A worker without an engine's process, for sequences of up to ``longest`` tokens."""
    settings, _ = parse_arguments([*options, "--max-model-len", str(longest)])
    plan = make_plan(settings, Registry.for_settings(settings), None).engine.worker
    worker = DeviceWorker()
    worker.start(plan)
    return worker, plan


def main() -> int:
    """Prints a JSON line a batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--batches", default="1,8,32,128,256")
    parser.add_argument("--context", type=int, default=256)
    args, rest = parser.parse_known_args()
    batches = [int(size) for size in args.batches.split(",")]
    worker, plan = started(rest, args.context + STEPS)
    for batch in batches:
        steps = Steps(worker, plan, batch, args.context)
        steps.admit()
        row: dict[str, object] = {"batch": batch, "step_ms": round(step_ms(steps), 4)}
        if worker.device.type == "cuda":
            row["kernels_us"] = kernel_us(steps)
        print(json.dumps(row), flush=True)
    worker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
