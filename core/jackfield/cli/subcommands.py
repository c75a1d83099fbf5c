"""``jackfield GROUP COMMAND ...``: a command's module is imported when the command is given."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from jackfield.config.suggestion import did_you_mean
from jackfield.errors import ConfigError


def run_subcommand(group: str, commands: Mapping[str, str], argv: list[str]) -> int:
    """Runs one of ``commands`` (name to help), each a module of ``jackfield.cli.GROUP`` with a
    ``main`` for the words behind it, or tells which there are; the exit status."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help", "help"):
        width = max(map(len, commands)) + 2
        lines = [f"  {each:<{width}}{text}" for each, text in commands.items()]
        print("\n".join([f"usage: jackfield {group} COMMAND ...", "", "commands:", *lines]))
        return 0
    if name not in commands:
        raise ConfigError(
            f"unknown command '{group} {name}'{did_you_mean(name, commands)} "
            f"(there are {', '.join(commands)})"
        )
    status: int = importlib.import_module(f"jackfield.cli.{group}.{name}").main(argv[1:])
    return status
