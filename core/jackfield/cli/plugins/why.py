"""``jackfield plugins why CHECKPOINT``: which plugin answers for what, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jackfield.cli.plugins.entries import parser, table
from jackfield.config.command_line import parse_arguments
from jackfield.hooks import Hooks
from jackfield.planning import make_plan
from jackfield.planning.choices import Choice
from jackfield.registry import HOOKS, Registry
from jackfield.registry.active import active_plugin

COLUMNS = ("kind", "name", "from", "why")


def main(argv: list[str]) -> int:
    """Prints a table or JSON. Reads the checkpoint's small files and no weights."""
    made = parser(
        "why",
        "Which plugin answers for what when a checkpoint is served, and why. Takes the options "
        "of `jackfield serve` behind the checkpoint.",
    )
    made.add_argument("checkpoint", metavar="CHECKPOINT")
    made.add_argument("--json", action="store_true", help="as JSON")
    args, rest = made.parse_known_args(argv)
    registry, choices = choices_for([args.checkpoint, *rest])
    rows = [
        {
            "kind": each.kind,
            "name": each.name,
            "from": active_plugin(registry, each.kind, each.name).origin,
            "why": each.reason,
        }
        for each in choices
    ]
    print(json.dumps(rows, indent=2) if args.json else table(rows, COLUMNS))
    return 0


def choices_for(words: Sequence[str]) -> tuple[Registry, tuple[Choice, ...]]:
    """The plugins of ``jackfield serve WORDS``, and which of them it chooses."""
    settings, _ = parse_arguments(words)
    registry = Registry.for_settings(settings)
    hooks = Hooks.installed(registry) if registry.list(HOOKS) else None
    return registry, make_plan(settings, registry, hooks, check_weights=False).choices
