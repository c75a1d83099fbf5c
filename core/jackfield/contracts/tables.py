"""Plugins as data: a TOML file with a table for each, read and refused in one way."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from jackfield.errors import ConfigError

T = TypeVar("T")


def read_tables(path: Path, what: str, make: Callable[[str, Mapping[str, object]], T]) -> list[T]:
    """What ``make(name, table)`` makes of each table of a file of ``what``.

    ``ConfigError`` names the file and what is wrong: also what ``make`` raises as ``TypeError`` or
    ``ValueError``, with the table's name.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the {what} of {path}: {error}") from None
    made = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} is not a table; write [{name}] and its keys")
        try:
            made.append(make(name, table))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: [{name}]: {error}") from None
    if not made:
        raise ConfigError(f"{path} has no table; write [NAME] and its keys")
    return made
