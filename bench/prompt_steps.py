"""Steps with prompts by themselves: what the host needs to enqueue one, what the device computes.

    python bench/prompt_steps.py DIR [--shapes 0+1x128,0+4x512,63+1x512] [options of serve]

A shape is ``decodes+prompts x tokens``; decodes have ``--context`` tokens. For each, on a worker
in this process, the least of some runs in milliseconds: ``alone`` from nothing under way to the
tokens on the host, ``enqueue`` until the call returns, ``chained`` a step where one follows the
other. What ``alone`` has above ``chained`` is the host's, which nothing hides for a lone request; a
``chained`` like ``enqueue`` is bound by the host.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
from decode_steps import started

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, PendingStep, ScheduledBatch
from jackfield_workers.device import DeviceWorker

RUNS, CHAINED, WARM_UPS = 12, 8, 3


class PromptSteps:
    """Enqueues steps of one shape: every prompt is admitted anew, as requests that come are."""

    def __init__(
        self, worker: DeviceWorker, plan: WorkerPlan, shape: tuple[int, int, int], context: int
    ) -> None:
        decodes, prompts, length = shape
        self._worker = worker
        self._context, self._length = context, length
        self._rows = np.arange(decodes + prompts, dtype=np.int32)
        blocks = -(-max(context + 1, length) // plan.block_size)
        self._tables = np.array(
            [(row, i, 1 + row * blocks + i) for row in self._rows for i in range(blocks)],
            dtype=np.int32,
        )
        self._num_decodes, self._step = decodes, 0
        if decodes:
            self._enqueue(self._admitted(0, decodes, context), self._rows[:decodes]).wait()

    def enqueue(self) -> PendingStep:
        """One step of the shape."""
        first = self._num_decodes
        return self._enqueue(
            self._admitted(first, len(self._rows), self._length), self._rows, first
        )

    def _admitted(self, begin: int, end: int, length: int) -> tuple[AdmittedRow, ...]:
        ids = (np.arange(length, dtype=np.int32) + self._step) % 1000
        return tuple(AdmittedRow(row, ids, length, TokenSampling()) for row in range(begin, end))

    def _enqueue(
        self, admitted: tuple[AdmittedRow, ...], rows: np.ndarray, first_prompt: int | None = None
    ) -> PendingStep:
        num_tokens = np.ones(len(rows), dtype=np.int32)
        positions = np.full(len(rows), self._context, dtype=np.int32)
        if first_prompt is not None:
            num_tokens[first_prompt:], positions[first_prompt:] = self._length, 0
        new = np.isin(self._tables[:, 0], [each.row for each in admitted])
        self._step += 1
        return self._worker.execute(
            ScheduledBatch(
                step=self._step,
                admitted=admitted,
                rows=rows,
                num_tokens=num_tokens,
                first_positions=positions,
                samples=np.ones(len(rows), dtype=np.bool_),
                new_blocks=self._tables[new],
            )
        )


def measure(steps: PromptSteps) -> dict[str, float]:
    """Milliseconds, the least of ``RUNS``."""
    for _ in range(WARM_UPS):
        steps.enqueue().wait()
    alone, enqueue, chained = [], [], []
    for _ in range(RUNS):
        begin = time.perf_counter()
        pending = steps.enqueue()
        enqueue.append(time.perf_counter() - begin)
        pending.wait()
        alone.append(time.perf_counter() - begin)
    for _ in range(RUNS):
        steps.enqueue().wait()
        begin = time.perf_counter()
        several = [steps.enqueue() for _ in range(CHAINED)]
        several[-1].wait()
        chained.append((time.perf_counter() - begin) / CHAINED)
    times = {"alone": alone, "enqueue": enqueue, "chained": chained}
    return {name: round(min(each) * 1e3, 3) for name, each in times.items()}


def parse_shape(text: str) -> tuple[int, int, int]:
    """``63+1x512`` -> 63 decodes and 1 prompt of 512 tokens."""
    decodes, _, prompts = text.partition("+")
    count, _, length = prompts.partition("x")
    return int(decodes), int(count), int(length)


def main() -> int:
    """Prints a JSON line a shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--shapes", default="0+1x128,0+1x512,0+4x512,63+1x512,60+4x496")
    parser.add_argument("--context", type=int, default=640)
    args, rest = parser.parse_known_args()
    shapes = [parse_shape(text) for text in args.shapes.split(",")]
    longest = max(args.context + 2, *(length + 1 for _, _, length in shapes))
    worker, plan = started(rest, longest)
    for text, shape in zip(args.shapes.split(","), shapes, strict=True):
        print(
            json.dumps({"shape": text, **measure(PromptSteps(worker, plan, shape, args.context))})
        )
    worker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
