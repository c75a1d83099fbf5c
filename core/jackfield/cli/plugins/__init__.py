"""``jackfield plugins COMMAND``: what is installed, what answers for a model, and how to make one.

Listing imports nothing of a plugin; a command's module is imported when the command is given.
"""

from __future__ import annotations

import importlib

from jackfield.config.suggestion import did_you_mean
from jackfield.errors import ConfigError

COMMANDS = {
    "list": "what is installed, of every kind",
    "info": "all that is known of a plugin, without importing it",
    "why": "which plugins answer for a checkpoint, and why",
    "verify": "imports each and checks version and contract",
    "check": "runs the conformance kit on a distribution or a file",
    "new": "a package with a plugin, a test and a README",
    "lock": "writes down which plugin code may run (--plugins-lock)",
}
"""Name to help; each is a module of this package with a ``main`` for the words behind it."""


def main(argv: list[str]) -> int:
    """Runs one command; its exit status."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS)) + 2
        lines = [f"  {each:<{width}}{text}" for each, text in COMMANDS.items()]
        print("\n".join(["usage: jackfield plugins COMMAND ...", "", "commands:", *lines]))
        return 0
    if name not in COMMANDS:
        raise ConfigError(
            f"unknown command 'plugins {name}'{did_you_mean(name, COMMANDS)} "
            f"(there are {', '.join(COMMANDS)})"
        )
    status: int = importlib.import_module(f"jackfield.cli.plugins.{name}").main(argv[1:])
    return status
