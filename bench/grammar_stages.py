"""Where the time of a step under a grammar goes, stage by stage, with the engine in this process.

    python bench/grammar_stages.py DIR [--batches 1 64] [--steps 100] [--offsets]
        [options of jackfield serve]

Milliseconds a step, the median of decode steps; ``step`` is all of it. The stages of the step
loop's thread follow each other: ``schedule`` (with building the batch), ``fill`` (the masks),
``finish`` and ``begin`` (enqueueing the sampling of the step that was begun, and the next;
``execute`` where no request has a grammar), ``wait`` (for tokens), ``accept`` (following the
tokens) and ``encode`` (the message). With ``--offsets`` each has the time at which it began beside
its own.

On a GPU ``gpu_forward`` and ``gpu_sample`` are the device's own time, ``gpu_before_sample`` and
``gpu_before_forward`` how long it had nothing to do before each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from grammar import SCHEMA

from jackfield.config.command_line import parse_arguments
from jackfield.contracts.grammar import GrammarSpec, StructuredOutputs
from jackfield.contracts.messages import AddRequest
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import Executor
from jackfield.engine.channel import FrameEncoder
from jackfield.engine.constrained import ConstrainedRequests
from jackfield.engine.mask_filler import MaskFiller
from jackfield.engine.serving import make_core, scheduler_maker
from jackfield.engine.step_loop import EngineCore
from jackfield.planning import make_plan
from jackfield.registry import Registry
from jackfield.text.grammar import grammar_spec

GRAMMARS = {
    "free": None,
    "any": grammar_spec(StructuredOutputs(regex=r"(.|\n)*")),
    "json": grammar_spec(StructuredOutputs(json=SCHEMA)),
}


class Stages:
    """When the functions that it was put around began and how long they took, by stage, in one
    step: milliseconds."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.began: dict[str, float] = {}
        self._start = 0.0

    def start(self) -> None:
        """A step begins."""
        self.spent.clear()
        self.began.clear()
        self._start = time.perf_counter()

    def around(self, owner: Any, name: str, stage: str) -> None:
        """Times a method of an object or a class from now on."""
        setattr(owner, name, self.timed(getattr(owner, name), stage))

    def timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The function, timed."""

        def call(*values: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = function(*values, **named)
            self.spent[stage] += 1e3 * (time.perf_counter() - began)
            self.began.setdefault(stage, 1e3 * (began - self._start))
            if stage in ("finish", "execute"):
                result.wait = self.timed(result.wait, "wait")
            return result

        return call


class DeviceTimes:
    """What the device does between the parts of a step, by events in its stream."""

    def __init__(self, executor: Executor) -> None:
        self._events: list[tuple[str, torch.cuda.Event]] = []
        if torch.cuda.is_available():
            for name in ("begin", "finish"):
                setattr(executor, name, self._marked(getattr(executor, name), name))

    def _marked(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            self._mark(name)
            result = function(*values)
            self._mark(f"{name}_over")
            return result

        return call

    def _mark(self, name: str) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append((name, event))

    def medians(self) -> dict[str, float]:
        """Milliseconds by what the device did, of all steps since the last call."""
        events, self._events = self._events, []
        if not events:
            return {}
        torch.cuda.synchronize()
        names = {
            ("begin", "begin_over"): "gpu_forward",
            ("begin_over", "finish"): "gpu_before_sample",
            ("finish", "finish_over"): "gpu_sample",
            ("finish_over", "begin"): "gpu_before_forward",
        }
        found: dict[str, list[float]] = defaultdict(list)
        for (name, event), (following, later) in itertools.pairwise(events):
            found[names[name, following]].append(event.elapsed_time(later))
        return {name: round(statistics.median(each), 3) for name, each in found.items()}


def make_engine(arguments: list[str]) -> tuple[EngineCore, Executor]:
    """The engine that these options describe."""
    settings, _ = parse_arguments(arguments)
    registry = Registry.for_settings(settings)
    plan = make_plan(settings, registry).engine
    executor: Executor = registry.make("executors", plan.worker.executor)
    capacity = executor.start(plan.worker)
    core, _ = make_core(plan, executor, scheduler_maker(plan, registry), capacity, [])
    return core, executor


def watch(core: EngineCore, executor: Executor) -> Stages:
    """Times the stages of every step from now on."""
    stages = Stages()
    for name in ("execute", "begin", "finish"):
        stages.around(executor, name, name)
    stages.around(core, "_build", "schedule")
    stages.around(ConstrainedRequests, "accept", "accept")
    stages.around(MaskFiller, "fill", "fill")
    stages.around(FrameEncoder, "encode", "encode")
    return stages


def add(core: EngineCore, batch: int, tokens: int, grammar: GrammarSpec | None, key: int) -> None:
    """Sends a batch of requests, the first with this key."""
    # The last id of a vocabulary is padding or a special token, which grammars allow at the end.
    stop = (core._bounds.logits_width - 1,) if grammar is not None else ()
    for index in range(batch):
        prompt = np.array([1000 + index, 11, 12, 13], dtype="<i4").tobytes()
        sampling = TokenSampling(grammar=grammar, stop_token_ids=stop)
        core.take_in(AddRequest(key + index, prompt, sampling, tokens, time.monotonic()))


def run(core: EngineCore, stages: Stages, batch: int, steps: int) -> dict[str, list[float]]:
    """Medians over the decode steps of a batch that was added: by stage when it began and how
    long it took, in milliseconds."""
    encoder = FrameEncoder()
    spent: dict[str, list[float]] = defaultdict(list)
    began: dict[str, list[float]] = defaultdict(list)
    num_decodes = 0
    while core.has_work or core.is_compiling:
        if not core.has_work:
            time.sleep(0.001)
            continue
        stages.start()
        start = time.perf_counter()
        message = core.step()
        if message is not None:
            encoder.encode(message)
            for failure in message.failed:
                raise SystemExit(failure.message)
        stages.spent["step"] = 1e3 * (time.perf_counter() - start)
        stages.began["step"] = 0.0
        is_whole = message is not None and len(message.keys) >= 8 * batch
        num_decodes += is_whole
        if is_whole and 8 < num_decodes <= steps:
            for stage, taken in stages.spent.items():
                spent[stage].append(taken)
                began[stage].append(stages.began[stage])
    return {
        stage: [round(statistics.median(began[stage]), 3), round(statistics.median(each), 3)]
        for stage, each in sorted(spent.items(), key=lambda item: statistics.median(began[item[0]]))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--offsets", action="store_true")
    options, rest = parser.parse_known_args()
    core, executor = make_engine(rest)
    device = DeviceTimes(executor)
    stages = watch(core, executor)
    key = 1
    for batch, kind in itertools.product(options.batches, GRAMMARS):
        for _ in range(2):  # the first compiles grammars and captures graphs
            device.medians()
            add(core, batch, options.steps + 20, GRAMMARS[kind], key)
            told = run(core, stages, batch, options.steps)
            key += batch
        shown = told if options.offsets else {stage: each[1] for stage, each in told.items()}
        print(json.dumps({"kind": kind, "batch": batch, **shown, **device.medians()}), flush=True)
    executor.stop()


if __name__ == "__main__":
    main()
