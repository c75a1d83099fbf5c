"""``jackfield plugins COMMAND``: what is installed, what answers for a model, and how to make one.

Listing imports nothing of a plugin.
"""

from __future__ import annotations

from jackfield.cli.subcommands import run_subcommand

COMMANDS = {
    "list": "what is installed, of every kind",
    "info": "all that is known of a plugin, without importing it",
    "why": "which plugins answer for a checkpoint, and why",
    "verify": "imports each and checks version and contract",
    "check": "runs the conformance kit on a distribution or a file",
    "new": "a package with a plugin, a test and a README",
    "lock": "writes down which plugin code may run (--plugins-lock)",
}


def main(argv: list[str]) -> int:
    """Runs one command; its exit status."""
    return run_subcommand("plugins", COMMANDS, argv)
