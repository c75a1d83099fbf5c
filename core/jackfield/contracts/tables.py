"""Plugins as data: a TOML file with a table for each, read and refused in one way."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from jackfield.errors import ConfigError

T = TypeVar("T")

Strings = tuple[str, ...]
"""In a file a list, or a string for one alone; none is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How ``auto`` knows the family. ``template``: what its chat template contains, all of it;
    ``without``: what it does not contain; ``architectures``: class names of ``config.json``."""

    template: Strings = ()
    without: Strings = ()
    architectures: Strings = ()

    def fits(self, chat_template: str) -> bool:
        """Whether the template shows the family."""
        return (
            bool(self.template)
            and all(text in chat_template for text in self.template)
            and not any(text in chat_template for text in self.without)
        )


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


def from_table(cls: type[T], values: Mapping[str, object], what: str = "keys") -> T:
    """The dataclass with these values. Its fields of ``str``, ``bool``, ``Strings`` and
    ``Detection`` are checked; ``ValueError`` names the key, ``what`` the table that it is in."""
    known = _types(cls)  # type: ignore[arg-type]  # classes are hashable
    checked = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"there is no key {key}; {what}: {', '.join(sorted(known))}")
        checked[key] = _checked(key, value, known[key])
    return cls(**checked)


@cache
def _types(cls: type[Any]) -> Mapping[str, Any]:
    return get_type_hints(cls)


def _checked(key: str, value: object, wanted: Any) -> object:
    if wanted is Detection:
        if not isinstance(value, dict):
            raise ValueError(f"{key} must be a table")
        return from_table(Detection, value, f"keys of {key}")
    if wanted == Strings:
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(each, str) and each for each in parts):
            raise ValueError(f"{key} must be a string or a list of strings, none empty")
        return tuple(parts)
    if wanted in (str, bool) and not isinstance(value, wanted):
        raise ValueError(f"{key} must be a {'boolean' if wanted is bool else 'string'}")
    return value
