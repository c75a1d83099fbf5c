"""What a start tells: the model, the cache, the plugins, the address; and the time it took."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jackfield.contracts.messages import EngineReady
from jackfield.registry.active import ActivePlugin, active_plugin

if TYPE_CHECKING:
    from jackfield.planning import ServingPlan
    from jackfield.registry import Registry

MAX_NOTES = 6

Phase = tuple[str, float, float]
"""Name, start, end; monotonic seconds."""


def active_plugins(plan: ServingPlan, registry: Registry) -> list[ActivePlugin]:
    """The plugins in use, with where they come from."""
    return [active_plugin(registry, each.kind, each.name) for each in plan.choices]


def plugins_line(active: Sequence[ActivePlugin]) -> str:
    """``schedulers fcfs, workers device (jackfield 0.1.0); tool_parsers mine (other 2.0)``."""
    by_origin: defaultdict[str, list[str]] = defaultdict(list)
    for plugin in active:
        by_origin[plugin.origin].append(f"{plugin.kind} {plugin.name}")
    return "; ".join(f"{', '.join(names)} ({origin})" for origin, names in by_origin.items())


def report(plan: ServingPlan, ready: EngineReady, plugins: str) -> Iterator[str]:
    """The lines of a start, without the address; the worker tells its part in ``ready.notes``."""
    worker = plan.engine.worker
    yield f"model {plan.directory}"
    yield from ready.notes[:MAX_NOTES]
    if len(ready.notes) > MAX_NOTES:
        yield f"({len(ready.notes) - MAX_NOTES} more notes)"
    yield (
        f"context {ready.max_model_len:,} tokens, {ready.num_blocks:,} KV blocks of "
        f"{ready.block_size}, at most {worker.max_num_seqs} requests at a time"
    )
    yield f"plugins: {plugins}"


def timeline(phases: Sequence[Phase], start: float, end: float) -> Iterator[str]:
    """One line a phase: when it began and ended, and a bar; ``start`` is time zero."""
    width = 40
    scale = width / max(end - start, 1e-9)
    yield f"{'phase':<32} {'from':>7} {'to':>7} {'s':>7}"
    for name, begin, stop in sorted(phases, key=lambda phase: phase[1]):
        left = min(width - 1, max(0, int((begin - start) * scale)))
        length = max(1, min(width - left, round((stop - begin) * scale)))
        bar = " " * left + "#" * length
        yield f"{name:<32.32} {begin - start:7.2f} {stop - start:7.2f} {stop - begin:7.2f} {bar}"
    yield f"{'ready':<32} {end - start:7.2f}"


def process_start() -> float:
    """When this process began, in monotonic seconds; now, where the system does not tell."""
    now = time.monotonic()
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        ticks = int(fields[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return now
    return now - age
