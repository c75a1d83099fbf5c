"""Decoding a GGUF file, in turn by Jackfield and by llama.cpp, on the same threads of a CPU.

Needs the package llama-cpp-python:

    python bench/gguf_beside_llama_cpp.py FILE.gguf --threads 2

Prints milliseconds a token, by the clock and of processor time, which other programs on the machine
disturb less. Our processor time is the engine's: model, sampler and scheduler.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jackfield import LLM, SamplingParams

PROMPT = list(range(1000, 1016))
CONTEXT = 1024
Measured = tuple[float, float]
"""Seconds by the clock, seconds of processor time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    sides = {
        "jackfield": jackfield(args.file, args.threads, args.tokens),
        "llama.cpp": llama_cpp(args.file, args.threads, args.tokens),
    }
    found: dict[str, list[Measured]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    for name, rounds in found.items():
        for what, seconds in zip(("clock", "processor"), zip(*rounds, strict=True), strict=True):
            each = [1e3 * second / args.tokens for second in seconds]
            print(
                f"{name:10} {what:10} best {min(each):6.1f}  median {statistics.median(each):6.1f}"
            )


def jackfield(file: str, threads: int, tokens: int) -> Callable[[], Measured]:
    llm = LLM(file, max_model_len=CONTEXT, num_threads=threads, use_tqdm_on_load=False)

    def generate(count: int) -> Measured:
        sampling = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
        return timed(
            lambda: llm.generate([{"prompt_token_ids": PROMPT}], sampling, use_tqdm=False),
            children_seconds,
        )

    def measure() -> Measured:
        first, all_tokens = generate(1), generate(1 + tokens)
        return all_tokens[0] - first[0], all_tokens[1] - first[1]

    return measure


def llama_cpp(file: str, threads: int, tokens: int) -> Callable[[], Measured]:
    package: Any = importlib.import_module("llama_cpp")
    model = package.Llama(
        file, n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def generate() -> None:
        for token in range(tokens):
            model.eval([2000 + token])

    def measure() -> Measured:
        model.reset()
        model.eval(PROMPT)
        return timed(generate, time.process_time)

    return measure


def timed(run: Callable[[], object], processor: Callable[[], float]) -> Measured:
    clock, used = time.perf_counter(), processor()
    run()
    return time.perf_counter() - clock, processor() - used


def children_seconds() -> float:
    """Processor time of the processes that this one started, and theirs."""
    ticks, waiting = 0, [os.getpid()]
    while waiting:
        for listed in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            for child in map(int, listed.read_text().split()):
                waiting.append(child)
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
