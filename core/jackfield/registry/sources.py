"""Plugins that were never packaged: a ``.py`` file, a module, or a ``.toml`` file of tables, named
by ``--<kind>-plugin``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import importlib_metadata

from jackfield.config.paths import given_path
from jackfield.config.plan import PluginSource
from jackfield.errors import BrokenPluginError, ConfigError, PluginError, UnknownPluginError
from jackfield.registry.kinds import KINDS

TABLES = "jackfield.tables"
"""Entry points, named by kind: functions ``(path, module) -> classes`` that read the tables of a
``.toml`` file. ``ConfigError`` from them says what is wrong with it."""

_OTHER_ENGINES = ("vllm", "sglang")


@dataclass(frozen=True, slots=True)
class SourceClass:
    """A class that a source offers under its own ``name``."""

    name: str
    source: str
    found: type[Any]

    def describe(self, kind: str) -> str:
        """Who it is, for messages."""
        return f"{kind} plugin {self.name!r} of {self.source}"


def source_file(source: PluginSource) -> Path | None:
    """The file that a source is, None for a module; ``UnknownPluginError`` where it is not there.
    Imports nothing."""
    if not source.source.endswith((".py", ".toml")):
        return None
    path = given_path(source.source).absolute()
    if not path.is_file():
        flag = KINDS[source.kind].plugin_flag
        raise UnknownPluginError(f"{flag} {source.source}: there is no such file")
    return path


def source_classes(source: PluginSource) -> list[SourceClass]:
    """Imports the source; its own classes that have a ``name`` and an ``api_version``, or those
    that its tables say."""
    path = source_file(source)
    if path is not None and path.suffix == ".toml":
        return _tables(source, path)
    module = _import(source, path)
    offered = []
    for found in vars(module).values():
        if not isinstance(found, type) or not _is_own(found, module):
            continue
        name = getattr(found, "name", None)
        if isinstance(name, str) and hasattr(found, "api_version"):
            offered.append(SourceClass(name, source.source, found))
    return offered


def _tables(source: PluginSource, path: Path) -> list[SourceClass]:
    flag = KINDS[source.kind].plugin_flag
    readers = list(importlib_metadata.entry_points(group=TABLES, name=source.kind))
    if not readers:
        raise PluginError(
            f"{flag} {source.source}: {source.kind} plugins are not written as tables; give a .py "
            "file or a module"
        )
    try:
        found: list[type[Any]] = readers[0].load()(path, _private_name(path))
    except ConfigError as error:
        raise PluginError(f"{flag} {source.source}: {error}") from error
    return [SourceClass(each.name, source.source, each) for each in found]


def _is_own(found: type[Any], module: ModuleType) -> bool:
    """Not what the source merely imports: a base class from elsewhere is no plugin of it."""
    return f"{found.__module__}.".startswith(f"{module.__name__}.")


def _import(source: PluginSource, path: Path | None) -> ModuleType:
    try:
        return importlib.import_module(source.source) if path is None else _execute(path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end the program
        raise BrokenPluginError(
            f"{KINDS[source.kind].plugin_flag} {source.source} is broken: {cause(error)}; "
            f"{_remedy(error)}, or leave the option out"
        ) from error


def _remedy(error: BaseException) -> str:
    root = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if root in _OTHER_ENGINES:
        return f"it was written for {root}: docs/plugins.md says how it is written here"
    return "correct it"


def _execute(path: Path) -> ModuleType:
    """Runs a file as a module of a private name, so that it can shadow no other module."""
    spec = importlib.util.spec_from_file_location(_private_name(path), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Before it runs: dataclasses and the like look their module up.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _private_name(path: Path) -> str:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    return f"_jackfield_{path.stem}_{digest}"


def cause(error: BaseException) -> str:
    """The type and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
