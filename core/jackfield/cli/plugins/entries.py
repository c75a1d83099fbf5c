"""What the commands about plugins share: the entries, a kind by its name, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jackfield.config.line_parser import LineParser
from jackfield.config.suggestion import did_you_mean
from jackfield.errors import ConfigError, UnknownPluginError
from jackfield.registry import HOOKS, KINDS, PluginEntry, Registry
from jackfield.registry.kinds import singular
from jackfield.registry.metadata import same_distribution

GROUPS = (*KINDS, HOOKS)


def parser(command: str, description: str) -> LineParser:
    """The parser of ``jackfield plugins COMMAND``."""
    return LineParser(prog=f"jackfield plugins {command}", description=description)


def kind_named(name: str) -> str:
    """``tool_parsers`` of ``tool_parsers``, ``tool-parsers`` or ``tool-parser``."""
    plain = name.replace("-", "_")
    for kind in GROUPS:
        if plain in (kind, singular(kind)):
            return kind
    raise ConfigError(
        f"there is no kind {name!r}{did_you_mean(plain, GROUPS)} (kinds are {', '.join(GROUPS)})"
    )


def all_entries(registry: Registry, kind: str | None = None) -> list[PluginEntry]:
    """What is installed, of one kind or of every kind and the hooks."""
    return [entry for each in ([kind] if kind else GROUPS) for entry in registry.list(each)]


def entries_named(registry: Registry, name: str) -> list[PluginEntry]:
    """The entries of that name, or of the distribution of that name; ``UnknownPluginError``."""
    entries = all_entries(registry)
    plain = name.replace("-", "_")
    found = [entry for entry in entries if entry.name.replace("-", "_") == plain]
    found = found or [each for each in entries if same_distribution(each.distribution, name)]
    if not found:
        known = {*(entry.name for entry in entries), *(entry.distribution for entry in entries)}
        raise UnknownPluginError(
            f"no plugin and no distribution with plugins is called {name!r}"
            f"{did_you_mean(name, sorted(known))}; see `jackfield plugins list`"
        )
    return found


def table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    """The rows under a line of headings, in columns as wide as they need to be."""
    lines = [{column: column for column in columns}, *rows]
    widths = {column: max(len(line[column]) for line in lines) for column in columns}
    return "\n".join(
        "  ".join(f"{line[column]:<{widths[column]}}" for column in columns).rstrip()
        for line in lines
    )
