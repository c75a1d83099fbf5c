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
    words = [args.checkpoint, *rest]
    registry = Registry.for_settings(parse_arguments(words)[0])
    rows = [
        {
            "kind": each.kind,
            "name": each.name,
            "from": active_plugin(registry, each.kind, each.name).origin,
            "why": each.reason,
        }
        for each in choices_for(words)
    ]
    print(json.dumps(rows, indent=2) if args.json else table(rows, COLUMNS))
    return 0


def choices_for(words: Sequence[str]) -> tuple[Choice, ...]:
    """The choices of ``jackfield serve WORDS``."""
    settings, _ = parse_arguments(words)
    registry = Registry.for_settings(settings)
    hooks = Hooks.installed(registry) if registry.list(HOOKS) else None
    return make_plan(settings, registry, hooks, check_weights=False).choices
