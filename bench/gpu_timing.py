"""Timing on a GPU: compiling ahead on threads, medians of CUDA-graph replays, rows of a report."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TextIO
from unittest import mock

import torch
from triton.runtime._async_compile import AsyncCompileMode
from triton.runtime.jit import JITFunction

Launch = Callable[[], object]


class Report:
    """Prints a row a figure and writes it as a JSON line."""

    def __init__(self, out: TextIO | None) -> None:
        self._out = out
        self.failed_checks = 0

    def row(self, section: str, name: str, text: str, **figures: object) -> None:
        print(f"{section:8} {name:44} {text}", flush=True)
        if self._out is not None:
            self._out.write(json.dumps({"section": section, "name": name, **figures}) + "\n")
            self._out.flush()

    def error(self, section: str, name: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}"[:150]
        self.row(section, name, text, error=text)

    def check(self, name: str, error: float, tolerance: float) -> None:
        good = error <= tolerance
        self.failed_checks += not good
        self.row("check", name, f"{error:.1e} {'' if good else 'WRONG'}", error=error, good=good)


@contextmanager
def precompiling() -> Iterator[None]:
    """Launches inside compile on threads and run nothing."""
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        return run(self, *args, grid=grid, warmup=True, **kwargs)

    with (
        ThreadPoolExecutor(14) as threads,
        AsyncCompileMode(threads, ignore_errors=True),
        mock.patch.object(JITFunction, "run", compile_only),
    ):
        yield


def precompile(launches: Sequence[Launch]) -> None:
    """Compiles all that the launches need; a failure shows again when one is run."""
    start = time.perf_counter()
    with precompiling():
        for launch in launches:
            try:
                launch()
            except Exception as error:
                print(f"compiling: {type(error).__name__}: {str(error)[:200]}", flush=True)
    print(f"compiled {len(launches)} launches in {time.perf_counter() - start:.1f} s", flush=True)


def microseconds(launches: Sequence[Launch], estimate: float, replays: int = 7) -> float:
    """Per launch, from one graph that goes round the launches for about 1.5 ms."""
    rounds = max(1, math.ceil(1500 / estimate / len(launches)))
    rounds = min(rounds, max(1, 400 // len(launches)))
    for launch in launches[:2]:
        launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for launch in launches:
                launch()
    graph.replay()
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(replays)
    ]
    for before, after in events:
        before.record()
        graph.replay()
        after.record()
    torch.cuda.synchronize()
    median = statistics.median(before.elapsed_time(after) for before, after in events)
    return median * 1e3 / (rounds * len(launches))
