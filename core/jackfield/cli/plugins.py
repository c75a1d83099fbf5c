"""``jackfield plugins list``: what is installed, from whom, and whether it works."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from jackfield.errors import ConfigError, PluginError
from jackfield.registry import KINDS, PluginEntry, Registry, installed_entries

HOOKS = "hooks"
HASH_CHARACTERS = 12


def main(argv: list[str]) -> int:
    """Prints a table or JSON; status 1 where ``--verify`` finds a plugin that does not work."""
    args = _parser().parse_args(argv)
    if args.kind is not None and args.kind not in (*KINDS, HOOKS):
        raise ConfigError(f"there is no kind {args.kind!r}; kinds are {', '.join(KINDS)}, {HOOKS}")
    registry = Registry()
    entries = [entry for kind in KINDS for entry in registry.list(kind)]
    entries += installed_entries([HOOKS])[HOOKS]
    entries = [entry for entry in entries if args.kind in (None, entry.kind)]
    rows = [_describe(entry) for entry in entries]
    if args.verify:
        for row, entry in zip(rows, entries, strict=True):
            row["state"] = _state(entry, registry)
    print(json.dumps(rows, indent=2) if args.json else _table(rows))
    return int(any(row.get("state", "ok") != "ok" for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jackfield plugins",
        description="Lists the installed plugins of every kind; imports none without --verify.",
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=["list"])
    parser.add_argument("--kind", help="only this kind")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--verify", action="store_true", help="import and check each of them")
    return parser


def _describe(entry: PluginEntry) -> dict[str, str]:
    path = plugin_file(entry.value)
    digest = "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "entry_point": entry.value,
        "sha256": digest,
    }


def plugin_file(value: str) -> Path | None:
    """The file of ``package.module:Class``, without importing the package; None if it has none."""
    package, *inner = value.partition(":")[0].split(".")
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin is not None else None
    for location in spec.submodule_search_locations or ():
        path = Path(location, *inner)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def _state(entry: PluginEntry, registry: Registry) -> str:
    try:
        if entry.kind == HOOKS:
            # Only here: pluggy is no part of a plain listing.
            from jackfield.hooks import Hooks

            Hooks([entry])
        else:
            registry.load(entry.kind, entry.name)
    except PluginError as error:
        return str(error)
    return "ok"


def _table(rows: Sequence[dict[str, str]]) -> str:
    columns = ["kind", "name", "distribution", "version", "entry_point", "sha256"]
    shown = [{**row, "sha256": row["sha256"][:HASH_CHARACTERS]} for row in rows]
    if any("state" in row for row in rows):
        columns.append("state")
    widths = {
        column: max([len(column), *(len(row[column]) for row in shown)]) for column in columns
    }
    lines = [{column: column for column in columns}, *shown]
    return "\n".join(
        "  ".join(f"{line[column]:<{widths[column]}}" for column in columns).rstrip()
        for line in lines
    )
