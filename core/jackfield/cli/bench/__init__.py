"""``jackfield bench``: latency, throughput, serve, chaos: a table each, and JSON on demand."""

from __future__ import annotations

from jackfield.cli.subcommands import run_subcommand

COMMANDS = {
    "latency": "one batch, start to end, and the time of a decode step (in this process tree)",
    "throughput": "many prompts at once, tokens a second (in this process tree)",
    "chaos": "load, kills, leavers and nonsense at once on a server; prints what was lost",
    "serve": "load on a running server over HTTP; the fields of `vllm bench serve`",
}


def main(argv: list[str]) -> int:
    """Runs one command; its exit status."""
    return run_subcommand("bench", COMMANDS, argv)
