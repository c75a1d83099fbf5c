"""``jackfield run-batch -i IN.jsonl -o OUT.jsonl``: the requests of a file, answered into another.

The exit status is 0 once every line of the input has its answer, or its error, in the output.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from jackfield.config.command_line import parse_arguments
from jackfield.config.line_parser import LineParser

if TYPE_CHECKING:
    from jackfield.config.settings import Settings


def main(argv: list[str]) -> int:
    """Takes its own options and those of ``jackfield serve``."""
    args, words = _parser().parse_known_args(argv)
    if args.url is not None:
        words += ["--host", args.url]
    settings, notes = parse_arguments(words, prog="jackfield run-batch")
    if settings.api_server_count > 1:
        notes.append("--api-server-count has no effect: one process reads and writes a batch")
    # Imports stand below the parsing: `run-batch --help` must not pay for them.
    from jackfield.config.log_output import log_output

    with log_output("debug" if settings.verbose else settings.log_level, notes):
        return _run(args, settings)


def _run(args: argparse.Namespace, settings: Settings) -> int:
    from jackfield.hooks import Hooks
    from jackfield.planning import make_plan
    from jackfield.registry import Registry
    from jackfield.server.batch.files import check_places
    from jackfield.server.batch.run import BatchFiles, run_batch

    check_places(args.input_file, args.output_file)
    registry = Registry.for_settings(settings)
    hooks = Hooks.installed(registry)
    plan = make_plan(settings, registry, hooks)
    files = BatchFiles(args.input_file, args.output_file, args.output_tmp_dir)
    return run_batch(
        settings, plan, registry, files, hooks=hooks, enable_metrics=args.enable_metrics
    )


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(
        prog="jackfield run-batch",
        usage="jackfield run-batch -i IN.jsonl -o OUT.jsonl [MODEL] [options]",
        description="Answers the requests of a file in OpenAI's batch format. Other options are "
        "those of `jackfield serve`.",
    )
    add = parser.add_argument
    add(
        *_spelled("-i", "--input-file"),
        required=True,
        metavar="PLACE",
        help="a path, or an http(s) address: fetched by GET",
    )
    add(
        *_spelled("-o", "--output-file"),
        required=True,
        metavar="PLACE",
        help="a path, or an http(s) address: sent by PUT, at the end",
    )
    add(
        *_spelled("--output-tmp-dir"),
        metavar="FOLDER",
        help="where answers are kept until they are sent; default: the system's",
    )
    add(
        *_spelled("--enable-metrics"),
        action="store_true",
        help="serve Prometheus metrics on --host and --port while the batch runs",
    )
    add("--url", metavar="HOST", help="the older name of --host")
    return parser


def _spelled(*flags: str) -> list[str]:
    """Dashes and underscores are the same."""
    underscored = [f"--{flag[2:].replace('-', '_')}" for flag in flags if flag.startswith("--")]
    return [*flags, *(each for each in underscored if each not in flags)]
