"""Where the time of a served token goes: stages of the engine's loop, kinds of steps, processes.

    python bench/serving_stages.py DIR [--loads "64 clients,512 clients"] [--rounds 1]
        [options of jackfield serve]

Puts the loads of ``bench/speed_table.py`` on a server of its own, and says for each what the
engine's loop spent a step by stage (``engine.step_clock``), how many steps of each kind there were
and what one took, what a request waited for, and the CPU time of each side; the load's warm-up is
in all but the rates. A loop that mostly waits is ahead of its device; another is the limit.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from speed_table import LOADS, Load, load_row, served

from jackfield.cli.bench.chaos import Server

PARTS = ("engine_stage_seconds", "engine_steps", "engine_step_seconds")
TIMES = {
    "request_queue_time_seconds": "waiting",
    "request_prefill_time_seconds": "scheduled to first token",
    "time_to_first_token_seconds": "arrival to first token",
}
Counts = dict[tuple[str, str], float]


def counts(server: Server) -> Counts:
    """(name, part) -> value: the engine's counters in parts, sums and counts of requests' times."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    found: Counts = {}
    for family in families:
        name = family.name.removeprefix("jackfield:")
        for sample in family.samples:
            if name in PARTS:
                part = sample.labels.get("stage") or sample.labels["kind"]
                found[name, part] = sample.value
            elif name in TIMES and not sample.name.endswith("_bucket"):
                found[name, sample.name.rpartition("_")[2]] = sample.value
    return found


def measure(load: Load, directory: str, server: Server, seed: int) -> None:
    """Runs a load, its warm-up included, and prints four lines."""
    before, began = counts(server), time.monotonic()
    api, engine = server.cpu_seconds()
    clients = children_seconds()
    row = load_row(load, directory, server, seed)
    seconds = time.monotonic() - began
    after = counts(server)
    api, engine = (
        now - then for now, then in zip(server.cpu_seconds(), (api, engine), strict=True)
    )
    grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
    print(
        f"{load.name}: {row['tok_per_s']:,.0f} tok/s, TTFT {row['ttft_ms']:.1f} ms, "
        f"TPOT {row['tpot_ms'] or 0:.3f} ms; CPU s of {seconds:.1f}: clients "
        f"{children_seconds() - clients:.1f}, API {api:.1f}, engine {engine:.1f}"
    )
    print("  " + steps_line(grown))
    print("  " + stages_line(grown))
    print("  " + requests_line(grown), flush=True)


def children_seconds() -> float:
    """CPU time of the processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def steps_line(grown: Mapping[tuple[str, str], float]) -> str:
    """How many steps of each kind, and milliseconds of one."""
    parts = []
    for (name, kind), count in grown.items():
        if name == "engine_steps" and count:
            each = grown["engine_step_seconds", kind] / count * 1e3
            parts.append(f"{count:,.0f} {kind} steps of {each:.3f} ms")
    return ", ".join(parts)


def stages_line(grown: Mapping[tuple[str, str], float]) -> str:
    """Microseconds a step by stage; what was idle, in all."""
    count = sum(value for (name, _), value in grown.items() if name == "engine_steps")
    stages = {stage: s for (name, stage), s in grown.items() if name == "engine_stage_seconds"}
    idle = stages.pop("idle")
    each = ", ".join(f"{stage} {s / count * 1e6:.0f}" for stage, s in stages.items() if s)
    return f"us a step: {each}; idle {idle:.2f} s"


def requests_line(grown: Mapping[tuple[str, str], float]) -> str:
    """Means of a request's times as the API process sees them, in milliseconds."""
    means = [
        f"{text} {grown[name, 'sum'] / grown[name, 'count'] * 1e3:.2f}"
        for name, text in TIMES.items()
    ]
    return f"ms a request: {', '.join(means)}"


def main() -> int:
    """Measures the loads in the order asked for, ``rounds`` times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("directory")
    parser.add_argument("--loads", default="1 client,64 clients,256 clients,512 clients")
    parser.add_argument("--rounds", type=int, default=1)
    args, options = parser.parse_known_args()
    by_name = {load.name: load for load in LOADS}
    wanted = [by_name[name] for name in args.loads.split(",")]
    with served(args.directory, options) as (_, server):
        for number, load in enumerate(wanted * args.rounds):
            measure(load, args.directory, server, number)
    return 0


if __name__ == "__main__":
    sys.exit(main())
