"""What is installed, read from the distributions' metadata; nothing is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import importlib_metadata

BUNDLED = "jackfield"
"""The distribution whose plugins ``--safe-mode`` leaves."""

_API_EXTRA = re.compile(r"\bapi-(\d+)\b")
_TRAIT = re.compile(r"[\w.-]+")
_HEADER = re.compile(r"^(Name|Version):[ \t]*(.*?)[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """An installed plugin. ``value`` is where it is: ``package.module:Class``.

    ``api_version`` is the contract version that the entry point states as an extra,
    ``name = "package.module:Class [api-1]"``; None where only the class knows. ``traits`` are the
    other extras: what a kind's contract lets a plugin say of itself before it is imported.
    """

    kind: str
    name: str
    distribution: str
    version: str
    value: str
    api_version: int | None = None
    traits: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.kind} plugin {self.name!r} of {self.distribution} {self.version}"

    @property
    def is_bundled(self) -> bool:
        """Whether it came with Jackfield."""
        return self.distribution == BUNDLED


def installed_entries(kinds: Iterable[str]) -> dict[str, list[PluginEntry]]:
    """The entries of the group ``jackfield.<kind>`` for each kind, sorted by name.

    Reads the entry points of every installed distribution, once.
    """
    found: dict[str, list[PluginEntry]] = {kind: [] for kind in kinds}
    owners: dict[int, tuple[str, str]] = {}
    for point in importlib_metadata.entry_points():
        prefix, _, kind = point.group.partition(".")
        if prefix != "jackfield" or kind not in found or point.dist is None:
            continue
        owner = owners.get(id(point.dist))
        if owner is None:
            owner = owners[id(point.dist)] = _name_and_version(point.dist)
        value, _, extras = point.value.partition("[")
        stated = _API_EXTRA.search(extras)
        version = None if stated is None else int(stated[1])
        traits = frozenset(_TRAIT.findall(_API_EXTRA.sub("", extras)))
        found[kind].append(PluginEntry(kind, point.name, *owner, value.strip(), version, traits))
    for entries in found.values():
        entries.sort(key=lambda entry: (entry.name, entry.distribution))
    return found


def same_distribution(one: str, other: str) -> bool:
    """Whether two spellings name one distribution (PEP 503)."""
    return _normal(one) == _normal(other)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name_and_version(distribution: importlib_metadata.Distribution) -> tuple[str, str]:
    """The two header fields alone: parsing all of METADATA costs a millisecond each."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    fields = dict(_HEADER.findall(text.partition("\n\n")[0]))
    return fields.get("Name", "unknown"), fields.get("Version", "0")
