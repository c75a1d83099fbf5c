"""What is installed, read from the distributions' metadata; nothing is imported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import importlib_metadata

BUNDLED = "jackfield"
"""The distribution whose plugins ``--safe-mode`` leaves."""


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """An installed plugin. ``value`` is where it is: ``package.module:Class``."""

    kind: str
    name: str
    distribution: str
    version: str
    value: str

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
    for point in importlib_metadata.entry_points():
        prefix, _, kind = point.group.partition(".")
        if prefix != "jackfield" or kind not in found or point.dist is None:
            continue
        value = point.value.partition("[")[0].strip()
        found[kind].append(
            PluginEntry(kind, point.name, point.dist.name, point.dist.version, value)
        )
    for entries in found.values():
        entries.sort(key=lambda entry: (entry.name, entry.distribution))
    return found
