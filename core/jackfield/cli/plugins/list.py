"""``jackfield plugins list``: every installed plugin, whose it is, and whether it is chosen."""

from __future__ import annotations

import argparse
import json

from jackfield.cli.plugins.entries import all_entries, kind_named, parser, table
from jackfield.registry import HOOKS, KINDS, PluginEntry, Registry
from jackfield.registry.files import file_hash, plugin_file

HASH_CHARACTERS = 12
COLUMNS = ("kind", "name", "distribution", "version", "entry_point", "chosen", "sha256")


def main(argv: list[str]) -> int:
    """Prints a table or JSON; imports no plugin unless a model is given behind ``--``, or each is
    to be verified: status 1 where one does not work then."""
    args = _parser().parse_args(argv)
    kind = None if args.kind is None else kind_named(args.kind)
    registry = Registry(bundled_only=args.safe_mode, disabled=args.disable_plugin)
    chosen = {
        (each.name, each.default.replace("-", "_")): "default"
        for each in KINDS.values()
        if each.default
    }
    if args.serve:
        # Reads the checkpoint and imports what decides: platforms and parsers.
        from jackfield.cli.plugins.why import choices_for

        _, choices = choices_for(args.serve)
        chosen = {(each.kind, each.name.replace("-", "_")): "yes" for each in choices}
    entries = all_entries(registry, kind)
    rows = [_describe(entry, chosen) for entry in entries]
    if args.verify:
        from jackfield.cli.plugins.verify import TIMEOUT_SECONDS, states

        found = states(entries, TIMEOUT_SECONDS)
        rows = [{**row, "state": state} for row, state in zip(rows, found, strict=True)]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        short = [{**row, "sha256": row["sha256"][:HASH_CHARACTERS]} for row in rows]
        print(table(short, (*COLUMNS, "state") if args.verify else COLUMNS))
    return int(any(row.get("state", "ok") != "ok" for row in rows))


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "list",
        "Lists the installed plugins of every kind and imports none. `chosen` says what `jackfield "
        "serve` takes where nothing else is asked for; behind -- a model and options may be given, "
        "and it says what they choose. Hooks always take part.",
    )
    made.add_argument("--kind", help="only this kind")
    made.add_argument("--json", action="store_true", help="as JSON, with the whole hashes")
    made.add_argument(
        "--verify", action="store_true", help="import each and say whether it works, as `verify`"
    )
    made.add_argument("--safe-mode", action="store_true", help="bundled plugins only")
    made.add_argument(
        "--disable-plugin", action="append", default=[], metavar="DIST", help="leave one out"
    )
    made.add_argument("serve", nargs="*", metavar="-- MODEL OPTIONS", help="as `serve` takes them")
    return made


def _describe(entry: PluginEntry, chosen: dict[tuple[str, str], str]) -> dict[str, str]:
    always = "always" if entry.kind == HOOKS else ""
    return {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "entry_point": entry.value,
        "api_version": "" if entry.api_version is None else str(entry.api_version),
        "chosen": always or chosen.get((entry.kind, entry.name.replace("-", "_")), ""),
        "sha256": file_hash(plugin_file(entry.value)),
    }
