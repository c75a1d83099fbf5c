"""Where the time of a step under a grammar goes, stage by stage, with the engine in this process.

    python bench/grammar_stages.py DIR [--batches 1 64] [--steps 100] [options of jackfield serve]

Milliseconds a step, the median of decode steps; ``step`` is all of it. The stages of the step
loop's thread follow each other: ``schedule`` (with building the batch), ``begin`` and ``finish``
(enqueueing the step and its sampling; ``execute`` where no request has a grammar), ``device``
(waiting for tokens), ``accept`` (following the tokens), ``fill`` (the masks) and ``ends`` (what
grammars do not know of).
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
from grammar import SCHEMA

from jackfield.config.command_line import parse_arguments
from jackfield.contracts.grammar import GrammarSpec
from jackfield.contracts.messages import AddRequest
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import Executor
from jackfield.engine.channel import FrameEncoder
from jackfield.engine.constrained import ConstrainedRequests
from jackfield.engine.constraint import MaskFiller
from jackfield.engine.serving import make_core, scheduler_maker
from jackfield.engine.step_loop import EngineCore
from jackfield.planning import make_plan
from jackfield.registry import Registry

GRAMMARS = {
    "free": None,
    "any": GrammarSpec(kind="regex", text=r"(.|\n)*"),
    "json": GrammarSpec(kind="json_schema", text=json.dumps(SCHEMA)),
}


class Stages:
    """Seconds of the functions that it was put around, by stage, for one step."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    def around(self, owner: Any, name: str, stage: str) -> None:
        """Times a method of an object or a class from now on."""
        setattr(owner, name, self.timed(getattr(owner, name), stage))

    def timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The function, timed."""

        def call(*values: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = function(*values, **named)
            self.spent[stage] += time.perf_counter() - began
            if stage in ("finish", "execute"):
                result.wait = self.timed(result.wait, "device")
            return result

        return call


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
    stages.around(core._scheduler, "schedule", "schedule")
    stages.around(core._builder, "build", "schedule")
    stages.around(ConstrainedRequests, "accept", "accept")
    stages.around(MaskFiller, "fill", "fill")
    stages.around(MaskFiller, "settle_ends", "ends")
    return stages


def add(core: EngineCore, batch: int, tokens: int, grammar: GrammarSpec | None, key: int) -> None:
    """Sends a batch of requests, the first with this key."""
    # The last id of a vocabulary is padding or a special token, which grammars allow at the end.
    stop = (core._bounds.logits_width - 1,) if grammar is not None else ()
    for index in range(batch):
        prompt = np.array([1000 + index, 11, 12, 13], dtype="<i4").tobytes()
        sampling = TokenSampling(grammar=grammar, stop_token_ids=stop)
        core.take_in(AddRequest(key + index, prompt, sampling, tokens, time.monotonic()))


def run(
    core: EngineCore, stages: Stages, batch: int, steps: int, kind: str, key: int
) -> dict[str, float]:
    """Milliseconds by stage of the decode steps of a batch."""
    add(core, batch, steps + 20, GRAMMARS[kind], key)
    encoder = FrameEncoder()
    found: dict[str, list[float]] = defaultdict(list)
    num_decodes = 0
    while core.has_work or core.is_compiling:
        if not core.has_work:
            time.sleep(0.001)
            continue
        stages.spent.clear()
        began = time.perf_counter()
        message = core.step()
        if message is not None:
            encoder.encode(message)
            for failure in message.failed:
                raise SystemExit(failure.message)
        taken = time.perf_counter() - began
        is_whole = message is not None and len(message.keys) >= 8 * batch
        num_decodes += is_whole
        if is_whole and 8 < num_decodes <= steps:
            found["step"].append(taken)
            for stage, seconds in stages.spent.items():
                found[stage].append(seconds)
    return {stage: round(1e3 * statistics.median(each), 3) for stage, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--steps", type=int, default=100)
    options, rest = parser.parse_known_args()
    core, executor = make_engine(rest)
    stages = watch(core, executor)
    key = 1
    for batch, kind in itertools.product(options.batches, GRAMMARS):
        for _ in range(2):  # the first compiles grammars and captures graphs
            told = run(core, stages, batch, options.steps, kind, key)
            key += batch
        print(json.dumps({"kind": kind, "batch": batch, **told}), flush=True)
    executor.stop()


if __name__ == "__main__":
    main()
