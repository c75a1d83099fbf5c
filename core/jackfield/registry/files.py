"""The files of a plugin and their hashes, found without importing anything of it."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

_LEFT_OUT = ("__pycache__",)
_COMPILED = (".pyc", ".pyo")


def plugin_file(value: str) -> Path | None:
    """The file of ``package.module:Class``; None if it has none."""
    package, *inner = value.partition(":")[0].split(".")
    spec = _find(package)
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


def file_hash(path: Path | None) -> str:
    """SHA-256 of a file, in hexadecimal; empty without one."""
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def top_package(value: str) -> str:
    """``package`` of ``package.module:Class``."""
    return value.partition(":")[0].partition(".")[0]


def package_hash(package: str) -> str | None:
    """SHA-256 over the names and contents of a top-level package's files, or of the one file of a
    module; compiled Python is left out. None where there is no such package."""
    spec = _find(package)
    if spec is None:
        return None
    digest = hashlib.sha256()
    for name, path in sorted(_files(spec.origin, list(spec.submodule_search_locations or ()))):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(origin: str | None, locations: list[str]) -> list[tuple[str, Path]]:
    if not locations:
        return [] if origin is None else [(Path(origin).name, Path(origin))]
    return [
        (path.relative_to(location).as_posix(), path)
        for location in locations
        for path in Path(location).rglob("*")
        if path.is_file()
        and path.suffix not in _COMPILED
        and not any(part in _LEFT_OUT for part in path.parts)
    ]


def _find(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
