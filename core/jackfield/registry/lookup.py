"""From a name to a plugin class, and what to say where there is none."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from jackfield.config.plan import PluginSetup, PluginSource, WorkerPlan
from jackfield.config.suggestion import did_you_mean
from jackfield.errors import (
    RAISED,
    AmbiguousPluginError,
    BrokenPluginError,
    JackfieldError,
    PluginError,
    UnknownPluginError,
)
from jackfield.registry.conformance import check_class, refuse_version
from jackfield.registry.files import top_package
from jackfield.registry.kinds import HOOKS, KINDS
from jackfield.registry.lock import PluginLock
from jackfield.registry.metadata import PluginEntry, installed_entries, same_distribution
from jackfield.registry.options import make_options
from jackfield.registry.sources import SourceClass, cause, source_classes, source_file

if TYPE_CHECKING:
    from jackfield.config.settings import Settings


class Registry:
    """The plugins of every kind, by name; hyphens and underscores in a name are the same.

    ``sources`` are plugins that were never packaged; what they offer goes before what is
    installed. With ``bundled_only`` (``--safe-mode``) nothing but Jackfield's own is offered,
    and nothing of the distributions in ``disabled``. ``lock`` is the path of a file that says
    which code may run; ``options`` what the user tells plugins, by their name.
    """

    def __init__(
        self,
        sources: Sequence[PluginSource] = (),
        *,
        bundled_only: bool = False,
        disabled: Iterable[str] = (),
        lock: str | None = None,
        options: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        if bundled_only and sources:
            flag = KINDS[sources[0].kind].plugin_flag
            raise PluginError(
                f"--safe-mode runs bundled plugins only; leave {flag} {sources[0].source} out"
            )
        self.setup = PluginSetup(
            sources=tuple(sources),
            bundled_only=bundled_only,
            disabled=tuple(disabled),
            lock=lock,
            options={name: dict(values) for name, values in (options or {}).items()},
        )
        self.sources = self.setup.sources
        self._lock = None if lock is None else PluginLock.read(lock)
        self._installed: dict[str, list[PluginEntry]] | None = None
        self._offered: dict[str, list[SourceClass]] = {}

    @classmethod
    def of(cls, setup: PluginSetup) -> Registry:
        """The registry that a setup describes."""
        return cls(
            setup.sources,
            bundled_only=setup.bundled_only,
            disabled=setup.disabled,
            lock=setup.lock,
            options=setup.options,
        )

    @classmethod
    def for_settings(cls, settings: Settings) -> Registry:
        """The registry of a process that has the options; they say what plugins are told too.
        Raises ``UnknownPluginError`` for a file that is not there, whether it is needed or not."""
        options = settings.plugin_options
        if settings.model_loader_extra_config:
            name = f"load_formats.{settings.load_format}"
            options[name] = {**settings.model_loader_extra_config, **options.get(name, {})}
        registry = cls(
            settings.plugin_sources,
            bundled_only=settings.safe_mode,
            disabled=settings.disable_plugin,
            lock=settings.plugins_lock,
            options=options,
        )
        for source in registry.sources:
            source_file(source)
        return registry

    @classmethod
    def for_plan(cls, plan: WorkerPlan) -> Registry:
        """The registry as the process that made the plan had it."""
        return cls.of(plan.plugins)

    # --- what is there -------------------------------------------------------------------

    def list(self, kind: str) -> list[PluginEntry]:
        """What is installed of a kind, or of the hooks, sorted by name. Imports nothing."""
        if self._installed is None:
            self._installed = installed_entries((*KINDS, HOOKS))
        return [entry for entry in self._installed[kind] if self._may_use(entry)]

    def has_source(self, kind: str) -> bool:
        """Whether the user gave a file or a module for this kind."""
        return any(source.kind == kind for source in self.sources)

    def offers(self, kind: str, name: str) -> bool:
        """Whether ``load`` would find a class. Imports what the user gave for the kind, if any."""
        names = [offer.name for offer in self.given(kind)]
        return any(_same(each, name) for each in [*names, *(e.name for e in self.list(kind))])

    def has_trait(self, kind: str, name: str, trait: str) -> bool:
        """Whether the plugin says so of itself: as an extra of its entry point, or in the
        ``traits`` of a class that the user gave. Imports what the user gave, if any."""
        for offer in self.given(kind):
            if _same(offer.name, name):
                return trait in getattr(offer.found, "traits", ())
        return any(trait in entry.traits for entry in self.list(kind) if _same(entry.name, name))

    def find(self, kind: str, name: str) -> PluginEntry | None:
        """The installed plugin called ``name``; raises as ``load`` does, but imports nothing.

        None where only ``load`` can tell: a class path, or a kind that has a source.
        """
        if is_class_path(name):
            self._allow_class_path(kind, name)
            return None
        if self.has_source(kind):
            return None
        entry = self._match(kind, name, [])
        self._check_static(entry)
        return entry

    def describe(self, kind: str, name: str) -> str:
        """Who is meant, for messages: ``schedulers plugin 'fair' of acme 1.0``."""
        if not is_class_path(name):
            for offer in self._offered.get(kind, ()):
                if _same(offer.name, name):
                    return offer.describe(kind)
            for entry in self.list(kind):
                if _same(entry.name, name):
                    return str(entry)
        return f"{kind} plugin {name}"

    # --- loading -------------------------------------------------------------------------

    def load(self, kind: str, name: str) -> type[Any]:
        """Imports and checks the class called ``name``, or the one at ``package.module:Class``.

        Raises ``UnknownPluginError``, ``AmbiguousPluginError``, ``IncompatiblePluginError`` or
        ``BrokenPluginError``, each in one line that says who is at fault and what to do.
        """
        if is_class_path(name):
            self._allow_class_path(kind, name)
            remedy = f"correct the class, or choose another {KINDS[kind].flag}"
            return _load(kind, f"{kind} plugin {name}", name, remedy)
        offered = self.given(kind)
        matches = [offer for offer in offered if _same(offer.name, name)]
        if len(matches) > 1:
            raise _ambiguous(kind, name, [offer.source for offer in matches], "leave one out")
        if matches:
            check_class(KINDS[kind], matches[0].describe(kind), matches[0].found, "correct it")
            return matches[0].found
        return self.load_entry(self._match(kind, name, [offer.name for offer in offered]))

    def load_entry(self, entry: PluginEntry) -> type[Any]:
        """Imports and checks one installed plugin; raises as ``load`` does."""
        self._check_static(entry)
        return _load(entry.kind, str(entry), entry.value, self._remedy(entry))

    def factory(self, kind: str, name: str) -> Callable[..., Any]:
        """What makes objects of the plugin: its class, with its options where it declares some.

        Raises as ``load`` does, and ``ConfigError`` for options that the plugin refuses.
        """
        found: Callable[..., Any] = (loaded := self.load(kind, name))
        options = make_options(self.describe(kind, name), loaded, self.options(kind, name))
        return found if options is None else partial(found, options=options)

    def make(self, kind: str, name: str, *arguments: object) -> Any:
        """One object of the plugin; ``BrokenPluginError`` where its constructor fails."""
        factory = self.factory(kind, name)
        try:
            return factory(*arguments)
        except JackfieldError:
            raise
        except RAISED as error:
            raise BrokenPluginError(
                f"{self.describe(kind, name)} is broken: its constructor raised {cause(error)}; "
                f"correct it, or choose another {KINDS[kind].flag}"
            ) from error

    def options(self, kind: str, name: str) -> dict[str, object]:
        """What the user tells this plugin; for it alone where the kind is said too."""
        merged: dict[str, object] = {}
        for wanted in (name, f"{kind}.{name}"):
            for given, values in self.setup.options.items():
                if _same(given, wanted):
                    merged |= values
        return merged

    def check_hook(self, entry: PluginEntry) -> None:
        """Raises where a hook plugin must not be imported: its version, or the lock."""
        self._check_static(entry)

    def load_class(self, path: str, flag: str) -> type[Any]:
        """A class of no kind, ``package.module:Class``, that the user gave with ``flag``; raises as
        ``load`` does."""
        self._allow_class_path("workers", path, flag)
        found = _import(f"{flag} {path}", path, "correct it, or leave it out")
        if not isinstance(found, type):
            raise BrokenPluginError(f"{flag} {path} is no class; correct it, or leave it out")
        return found

    # --- inside --------------------------------------------------------------------------

    def _may_use(self, entry: PluginEntry) -> bool:
        if entry.is_bundled:
            return True
        return not self.setup.bundled_only and not any(
            same_distribution(entry.distribution, name) for name in self.setup.disabled
        )

    def _check_static(self, entry: PluginEntry) -> None:
        """What can be refused before anything of the plugin is imported."""
        if entry.api_version is not None and entry.kind in KINDS:
            refuse_version(KINDS[entry.kind], str(entry), entry.api_version, self._remedy(entry))
        if self._lock is not None:
            self._lock.check_entry(entry)

    def _remedy(self, entry: PluginEntry) -> str:
        others = [each.name for each in self.list(entry.kind) if each != entry]
        remedy = f"install another version of {entry.distribution}"
        if others and entry.kind in KINDS:
            remedy += f", or choose {' or '.join(others[:3])} with {KINDS[entry.kind].flag}"
        return remedy

    def given(self, kind: str) -> Sequence[SourceClass]:
        """What the files and modules offer that the user gave for the kind; imports them."""
        if kind not in self._offered:
            self._offered[kind] = [
                offer
                for source in self.sources
                if source.kind == kind
                for offer in self._classes_of(source)
            ]
        return self._offered[kind]

    def _classes_of(self, source: PluginSource) -> Sequence[SourceClass]:
        if self._lock is not None:
            flag = KINDS[source.kind].plugin_flag
            self._lock.check_source(source.kind, flag, source.source)
        return source_classes(source)

    def _match(self, kind: str, name: str, offered: Sequence[str]) -> PluginEntry:
        entries = self.list(kind)
        matches = [entry for entry in entries if _same(entry.name, name)]
        if not matches:
            raise self._unknown(kind, name, [*offered, *(entry.name for entry in entries)])
        if len(matches) > 1:
            owners = [f"{each.distribution} {each.version}" for each in matches]
            remedy = (
                f"uninstall one, leave one out with --disable-plugin {matches[0].distribution}, "
                f"or name the class: {KINDS[kind].flag} {matches[0].value}"
            )
            raise _ambiguous(kind, name, owners, remedy)
        return matches[0]

    def _unknown(self, kind: str, name: str, known: Sequence[str]) -> UnknownPluginError:
        names = ", ".join(dict.fromkeys(known)) or "none"
        where = "bundled" if self.setup.bundled_only else "installed"
        remedy = (
            f"install a distribution that offers it in the entry-point group {KINDS[kind].group}, "
            f"or give its file with {KINDS[kind].plugin_flag}"
        )
        return UnknownPluginError(
            f"there is no {kind} plugin {name!r}{did_you_mean(name, known)} "
            f"({where}: {names}); {remedy}"
        )

    def _allow_class_path(self, kind: str, name: str, flag: str | None = None) -> None:
        if self.setup.bundled_only:
            flag = flag or KINDS[kind].flag
            raise PluginError(f"--safe-mode runs bundled plugins only; leave {flag} {name} out")
        if self._lock is not None:
            bundled = {
                top_package(entry.value)
                for each in KINDS
                for entry in self.list(each)
                if entry.is_bundled
            }
            self._lock.check_class_path(kind, name, bundled)


def is_class_path(name: str) -> bool:
    """Whether it is ``package.module:Class`` (or ``package.module.Class``), not a plugin's name."""
    return ":" in name or (name.count(".") > 0 and name.replace(".", "").isidentifier())


def _load(kind: str, who: str, value: str, remedy: str) -> type[Any]:
    result: type[Any] = _import(who, value, remedy)
    check_class(KINDS[kind], who, result, remedy)
    return result


def _import(who: str, value: str, remedy: str) -> Any:
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
    return found


def _same(one: str, other: str) -> bool:
    return one.replace("-", "_") == other.replace("-", "_")


def _ambiguous(kind: str, name: str, owners: list[str], remedy: str) -> AmbiguousPluginError:
    return AmbiguousPluginError(
        f"{kind} plugin {name!r} is offered by {' and by '.join(owners)}; {remedy}"
    )
