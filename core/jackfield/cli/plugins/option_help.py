"""``jackfield serve --help=plugin:NAME``: what a plugin can be told."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from jackfield.cli.plugins.entries import entries_named
from jackfield.registry import HOOKS, KINDS, Registry
from jackfield.registry.options import FLAG, describe_options


def option_help(name: str, registry: Registry) -> Iterator[str]:
    """A block of lines for each plugin of the name, of every kind. Imports them."""
    for kind, who, found in _plugins(name, registry):
        yield who
        summary = (inspect.getdoc(found) or "").partition("\n")[0]
        if summary:
            yield f"  {summary}"
        options = describe_options(who, found)
        if not options:
            yield "  It takes no options."
        flags = [f"{FLAG} {name}.{option.name}={option.type.upper()}" for option in options]
        width = max(map(len, flags), default=0) + 2
        for flag, option in zip(flags, options, strict=True):
            default = "required" if option.default is None else f"default: {option.default}"
            yield f"  {flag:<{width}}{option.help} [{default}]"
        if kind in KINDS:
            yield f"  chosen by {KINDS[kind].flag}, runs in the {KINDS[kind].process}"


def _plugins(name: str, registry: Registry) -> Iterator[tuple[str, str, type[Any]]]:
    plain = name.replace("-", "_")
    given = [
        (kind, offer.describe(kind), offer.found)
        for kind in KINDS
        for offer in registry.given(kind)
        if offer.name.replace("-", "_") == plain
    ]
    yield from given
    if given:
        return
    for entry in entries_named(registry, name):
        if entry.kind == HOOKS:
            from jackfield.hooks import load_hooks  # pluggy, for hooks alone

            yield entry.kind, str(entry), load_hooks(entry)
        else:
            yield entry.kind, str(entry), registry.load_entry(entry)
