"""From a name to a plugin class, and what to say where there is none."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from jackfield.config.plan import PluginSource, WorkerPlan
from jackfield.config.suggestion import did_you_mean
from jackfield.errors import (
    AmbiguousPluginError,
    BrokenPluginError,
    PluginError,
    UnknownPluginError,
)
from jackfield.registry.conformance import check_class
from jackfield.registry.kinds import KINDS
from jackfield.registry.metadata import PluginEntry, installed_entries
from jackfield.registry.sources import SourceClass, cause, source_classes


class Registry:
    """The plugins of every kind, by name; hyphens and underscores in a name are the same.

    ``sources`` are plugins that were never packaged; what they offer goes before what is
    installed. With ``bundled_only`` (``--safe-mode``) nothing but Jackfield's own is offered.
    """

    def __init__(self, sources: Sequence[PluginSource] = (), *, bundled_only: bool = False) -> None:
        if bundled_only and sources:
            flag = KINDS[sources[0].kind].plugin_flag
            raise PluginError(
                f"--safe-mode runs bundled plugins only; leave {flag} {sources[0].source} out"
            )
        self.sources = tuple(sources)
        self._bundled_only = bundled_only
        self._installed: dict[str, list[PluginEntry]] | None = None
        self._offered: dict[str, list[SourceClass]] = {}

    @classmethod
    def for_plan(cls, plan: WorkerPlan) -> Registry:
        """The registry as the process that made the plan had it."""
        return cls(plan.plugin_sources, bundled_only=plan.bundled_plugins_only)

    def list(self, kind: str) -> list[PluginEntry]:
        """What is installed of a kind, sorted by name. Imports nothing."""
        if self._installed is None:
            self._installed = installed_entries(KINDS)
        entries = self._installed[kind]
        return [entry for entry in entries if entry.is_bundled or not self._bundled_only]

    def has_source(self, kind: str) -> bool:
        """Whether the user gave a file or a module for this kind."""
        return any(source.kind == kind for source in self.sources)

    def find(self, kind: str, name: str) -> PluginEntry | None:
        """The installed plugin called ``name``; raises as ``load`` does, but imports nothing.

        None where only ``load`` can tell: a class path, or a kind that has a source.
        """
        if is_class_path(name):
            self._allow_class_path(kind, name)
            return None
        if self.has_source(kind):
            return None
        return self._match(kind, name, [])

    def load(self, kind: str, name: str) -> type[Any]:
        """Imports and checks the class called ``name``, or the one at ``package.module:Class``.

        Raises ``UnknownPluginError``, ``AmbiguousPluginError``, ``IncompatiblePluginError`` or
        ``BrokenPluginError``, each in one line that says who is at fault and what to do.
        """
        if is_class_path(name):
            self._allow_class_path(kind, name)
            remedy = f"correct the class, or choose another {KINDS[kind].flag}"
            return _load(kind, f"{kind} plugin {name}", name, remedy)
        offered = self._source_offers(kind)
        matches = [offer for offer in offered if _same(offer.name, name)]
        if len(matches) > 1:
            raise _ambiguous(kind, name, [offer.source for offer in matches], "leave one out")
        if matches:
            check_class(KINDS[kind], matches[0].describe(kind), matches[0].found, "correct it")
            return matches[0].found
        return self.load_entry(self._match(kind, name, [offer.name for offer in offered]))

    def load_entry(self, entry: PluginEntry) -> type[Any]:
        """Imports and checks one installed plugin; raises as ``load`` does."""
        others = [each.name for each in self.list(entry.kind) if each != entry]
        remedy = f"install another version of {entry.distribution}"
        if others:
            remedy += f", or choose {' or '.join(others[:3])} with {KINDS[entry.kind].flag}"
        return _load(entry.kind, str(entry), entry.value, remedy)

    def _source_offers(self, kind: str) -> Sequence[SourceClass]:
        if kind not in self._offered:
            self._offered[kind] = [
                offer
                for source in self.sources
                if source.kind == kind
                for offer in source_classes(source)
            ]
        return self._offered[kind]

    def _match(self, kind: str, name: str, offered: Sequence[str]) -> PluginEntry:
        entries = self.list(kind)
        matches = [entry for entry in entries if _same(entry.name, name)]
        if not matches:
            raise self._unknown(kind, name, [*offered, *(entry.name for entry in entries)])
        if len(matches) > 1:
            owners = [f"{each.distribution} {each.version}" for each in matches]
            remedy = f"uninstall one, or name the class: {KINDS[kind].flag} {matches[0].value}"
            raise _ambiguous(kind, name, owners, remedy)
        return matches[0]

    def _unknown(self, kind: str, name: str, known: Sequence[str]) -> UnknownPluginError:
        names = ", ".join(dict.fromkeys(known)) or "none"
        where = "bundled" if self._bundled_only else "installed"
        remedy = (
            f"install a distribution that offers it in the entry-point group {KINDS[kind].group}, "
            f"or give its file with {KINDS[kind].plugin_flag}"
        )
        return UnknownPluginError(
            f"there is no {kind} plugin {name!r}{did_you_mean(name, known)} "
            f"({where}: {names}); {remedy}"
        )

    def _allow_class_path(self, kind: str, name: str) -> None:
        if self._bundled_only:
            raise PluginError(
                f"--safe-mode runs bundled plugins only; leave {KINDS[kind].flag} {name} out"
            )


def is_class_path(name: str) -> bool:
    """Whether it is ``package.module:Class`` (or ``package.module.Class``), not a plugin's name."""
    return ":" in name or (name.count(".") > 0 and name.replace(".", "").isidentifier())


def _load(kind: str, who: str, value: str, remedy: str) -> type[Any]:
    module, colon, attribute = value.partition(":")
    if not colon:
        module, _, attribute = value.rpartition(".")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end the program
        raise BrokenPluginError(f"{who} is broken: {cause(error)}; {remedy}") from error
    check_class(KINDS[kind], who, found, remedy)
    result: type[Any] = found
    return result


def _same(one: str, other: str) -> bool:
    return one.replace("-", "_") == other.replace("-", "_")


def _ambiguous(kind: str, name: str, owners: list[str], remedy: str) -> AmbiguousPluginError:
    return AmbiguousPluginError(
        f"{kind} plugin {name!r} is offered by {' and by '.join(owners)}; {remedy}"
    )
