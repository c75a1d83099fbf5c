"""``jackfield bench``: latency, throughput, serve, chaos: a table each, and JSON on demand."""

from __future__ import annotations

import argparse
import importlib

COMMANDS = {
    "latency": "one batch, start to end, and the time of a decode step (in this process tree)",
    "throughput": "many prompts at once, tokens a second (in this process tree)",
    "chaos": "load, kills, leavers and nonsense at once on a server; prints what was lost",
    "serve": "load on a running server over HTTP; the fields of `vllm bench serve`",
}


def main(argv: list[str]) -> int:
    """Runs ``jackfield bench COMMAND ...``; returns the exit status."""
    lines = "\n".join(f"  {name:12s}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="jackfield bench",
        description=f"Measures Jackfield.\n\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=sorted(COMMANDS), metavar="COMMAND")
    args = parser.parse_args(argv[:1])
    module = importlib.import_module(f"jackfield.cli.bench.{args.command}")
    result: int = module.main(argv[1:])
    return result
