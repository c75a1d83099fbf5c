"""What grammars cost the host in one step, with a device that costs nothing: no GPU needed.

    python bench/grammar_host.py TOKENS DIR [--batch 64] [--tokens 128] [--rounds 10]
        [options of jackfield serve]

TOKENS is a file with what the model wrote under the grammars of bench/grammar.py; where there is
none yet, the model in DIR writes it first. The real step loop then follows these tokens, in one
thread, over an executor that hands them out at once.

Microseconds a step by kind: each step's least of all rounds, the mean of all steps. ``step`` is
all of it, ``mask`` the filling of masks, ``collect`` the taking in of tokens, of which following
grammars is a part; ``most`` is the dearest step. ``filled`` counts masks that were written anew, a
step. ``yardstick`` is a loop of 10,000 additions in the same minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from grammar import kinds

from jackfield import LLM, SamplingParams
from jackfield.config.command_line import parse_arguments
from jackfield.config.plan import EnginePlan, WorkerPlan
from jackfield.contracts.messages import AddRequest
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import KVCapacity, ScheduledBatch, StepOutput, TokenMasks
from jackfield.engine.serving import make_core, scheduler_maker
from jackfield.engine.step_loop import EngineCore
from jackfield.planning import make_plan
from jackfield.registry import Registry
from jackfield.testing.simulated_worker import SimulatedStep
from jackfield.text.grammar import grammar_spec

Answers = dict[str, list[list[int]]]
NUM_FIRST_STEPS = 2
"""Not counted: the prompts' and the first token's."""


def prompts(batch: int) -> list[list[int]]:
    """As bench/grammar.py has them."""
    return [[1000 + index, 11, 12, 13] for index in range(batch)]


def record(arguments: Sequence[str], batch: int, tokens: int) -> Answers:
    """What the model writes, by kind."""
    answers: Answers = {}
    with LLM.from_arguments(arguments) as llm:
        for kind, params in kinds(batch, tokens).items():
            results = llm.generate(prompts(batch), params, use_tqdm=False)
            answers[kind] = [list(result.outputs[0].token_ids) for result in results]
    return answers


class RecordedExecutor:
    """Hands out tokens that were sampled before."""

    name: ClassVar[str] = "recorded"
    api_version: ClassVar[int] = 1

    def __init__(self, num_rows: int, max_len: int) -> None:
        self._ids = np.zeros((num_rows, max_len + 2), dtype=np.int32)
        self._begun: StepOutput | None = None
        self.answers: list[list[int]] = []
        self.num_filled = 0

    def start(self, plan: WorkerPlan) -> KVCapacity:
        """Never: it has no device."""
        raise AssertionError("not started")

    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        """The tokens of a step."""
        return SimulatedStep(self._output(batch))

    def begin(self, batch: ScheduledBatch) -> None:
        """Remembers the step."""
        self._begun = self._output(batch)

    def finish(self, masks: TokenMasks) -> SimulatedStep:
        """The tokens of the step that was begun."""
        assert self._begun is not None
        self.num_filled += int(masks.are_new.sum())
        return SimulatedStep(self._begun)

    def stop(self) -> None:
        """Nothing to free."""

    def _output(self, batch: ScheduledBatch) -> StepOutput:
        for each in batch.admitted:
            answer = self.answers[int(each.token_ids[0]) - 1000]
            self._ids[each.row, each.num_prompt_tokens :][: len(answer)] = answer
        return StepOutput(self._ids[batch.rows, batch.first_positions + batch.num_tokens])


def make_engine(arguments: Sequence[str], batch: int) -> tuple[EngineCore, RecordedExecutor]:
    """The step loop that these options describe, over recorded tokens."""
    settings, _ = parse_arguments(arguments)
    registry = Registry.for_settings(settings)
    plan: EnginePlan = make_plan(settings, registry).engine
    width = plan.worker.config["vocab_size"]
    assert isinstance(width, int)
    executor = RecordedExecutor(plan.worker.max_num_seqs, plan.worker.max_model_len)
    num_blocks = 1 + batch * -(-plan.worker.max_model_len // plan.worker.block_size)
    capacity = KVCapacity(num_blocks=num_blocks, logits_width=width, steps_in_flight=2)
    core, _ = make_core(plan, executor, scheduler_maker(plan, registry), capacity, [])
    return core, executor


def add(core: EngineCore, params: Sequence[SamplingParams], tokens: int, key: int) -> None:
    """Sends a batch, the first with this key, and waits for its grammars."""
    for index, (prompt, each) in enumerate(zip(prompts(len(params)), params, strict=True)):
        wanted = each.structured_outputs
        sampling = TokenSampling(grammar=None if wanted is None else grammar_spec(wanted))
        ids = np.array(prompt, dtype="<i4").tobytes()
        core.take_in(AddRequest(key + index, ids, sampling, tokens, time.monotonic()))
    while len(core._constrained) and not core.has_work:
        time.sleep(0.01)
    time.sleep(0.1)


def replay(core: EngineCore) -> list[dict[str, float]]:
    """Microseconds of each step: all of it and by stage."""
    steps = []
    before = core.clock.stage_seconds()
    while core.has_work:
        began = time.perf_counter()
        message = core.step()
        taken = time.perf_counter() - began
        for failure in message.failed if message is not None else ():
            raise SystemExit(failure.message)
        after = core.clock.stage_seconds()
        stages = {stage: 1e6 * (after[stage] - before[stage]) for stage in ("mask", "collect")}
        steps.append({"step": 1e6 * taken, **stages})
        before = after
    return steps


def least(rounds: Sequence[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Each step's least of all rounds."""
    return [
        {stage: min(step[stage] for step in same) for stage in same[0]}
        for same in zip(*rounds, strict=True)
    ]


def yardstick() -> float:
    """Microseconds of a loop of the interpreter, the least of many."""

    def taken(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def additions() -> int:
        total = 0
        for each in range(10_000):
            total += each
        return total

    return round(1e6 * min(taken(additions) for _ in range(50)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tokens_file", type=Path, metavar="TOKENS")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=["free", "any", "json", "mixed", "keys"])
    parser.add_argument("directory", metavar="DIR")
    options, rest = parser.parse_known_args()
    arguments = [options.directory, *rest]
    if not options.tokens_file.exists():
        answers = record(arguments, options.batch, options.tokens)
        options.tokens_file.write_text(json.dumps(answers))
    answers = json.loads(options.tokens_file.read_text())
    core, executor = make_engine(arguments, options.batch)
    key = 1
    for kind, params in kinds(options.batch, options.tokens).items():
        if kind not in options.kinds:
            continue
        executor.answers = answers[kind]
        rounds = []
        for _ in range(1 + options.rounds):  # the first compiles
            executor.num_filled = 0
            add(core, params, options.tokens, key)
            key += options.batch
            rounds.append(replay(core))
        steps = least(rounds[1:])[NUM_FIRST_STEPS:]
        means = {stage: round(statistics.mean(s[stage] for s in steps)) for stage in steps[0]}
        most = round(max(step["step"] for step in steps))
        filled = round(executor.num_filled / len(rounds[-1]), 1)
        told = {"kind": kind, **means, "most": most, "filled": filled, "yardstick": yardstick()}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
