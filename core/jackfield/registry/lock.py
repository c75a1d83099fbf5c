"""A lock file: which plugin code may run, by hash. ``--plugins-lock FILE`` starts with no other.

Written by ``jackfield plugins lock``. It names each plugin distribution with its version and the
hash of each of its packages that holds a plugin, and the hash of each plugin file. What is
hashed is compared right before it is imported, in every process that imports it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jackfield.config.paths import given_path
from jackfield.errors import ConfigError, PluginError
from jackfield.registry.files import file_hash, package_hash, top_package
from jackfield.registry.metadata import PluginEntry

FLAG = "--plugins-lock"
FILE_SUFFIXES = (".py", ".toml")
"""What a plugin file's name ends with; any other plugin that was never packaged is a module."""
_HEAD = "# Made by `jackfield plugins lock`. `--plugins-lock FILE` runs no other plugin code.\n"


@dataclass(frozen=True, slots=True)
class LockedDistribution:
    """One distribution: its version, its plugins, and the hash of each package."""

    version: str
    plugins: Sequence[str]
    packages: Mapping[str, str]


class PluginLock:
    """What may run. Every ``check`` raises ``PluginError``, one line that says what changed."""

    def __init__(
        self,
        distributions: Mapping[str, LockedDistribution],
        files: Mapping[str, str],
        source: str = "",
    ) -> None:
        self.distributions = distributions
        self.files = files
        self._source = source
        self._unchanged: set[str] = set()

    @classmethod
    def read(cls, path: str) -> PluginLock:
        """Reads a file that ``text`` wrote."""
        try:
            content = tomllib.loads(given_path(path).read_text(encoding="utf-8"))
            found = {
                name: LockedDistribution(each["version"], each["plugins"], each["packages"])
                for name, each in content.get("distributions", {}).items()
            }
            return cls(found, dict(content.get("files", {})), path)
        except OSError as error:
            raise ConfigError(f"cannot read {FLAG} {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{FLAG} {path} is no lock file ({error}); make one with `jackfield plugins lock`"
            ) from None

    @classmethod
    def of(cls, entries: Iterable[PluginEntry], files: Iterable[str]) -> PluginLock:
        """What is here now. Imports nothing."""
        grouped: dict[tuple[str, str], list[PluginEntry]] = {}
        for entry in entries:
            if not entry.is_bundled:
                grouped.setdefault((entry.distribution, entry.version), []).append(entry)
        distributions = {
            name: LockedDistribution(
                version,
                sorted(f"{each.kind}:{each.name}" for each in own),
                {
                    package: package_hash(package) or ""
                    for package in sorted({top_package(each.value) for each in own})
                },
            )
            for (name, version), own in sorted(grouped.items())
        }
        return cls(distributions, {file: file_hash(_existing(file)) for file in files})

    def text(self) -> str:
        """The lock file."""
        lines = [_HEAD]
        for name, each in self.distributions.items():
            lines += [
                f"[distributions.{json.dumps(name)}]",
                f"version = {json.dumps(each.version)}",
                f"plugins = {json.dumps(list(each.plugins))}",
                f"packages = {_inline(each.packages)}",
                "",
            ]
        if self.files:
            lines.append("[files]")
            lines += [f"{json.dumps(name)} = {json.dumps(h)}" for name, h in self.files.items()]
        return "\n".join(lines).rstrip() + "\n"

    def check_entry(self, entry: PluginEntry) -> None:
        """An installed plugin; bundled ones are Jackfield's own code and always pass."""
        if entry.is_bundled:
            return
        locked = self.distributions.get(entry.distribution)
        if locked is None:
            raise self._refusal(f"{entry} is not in it")
        if locked.version != entry.version:
            raise self._refusal(f"{entry} was locked at version {locked.version}")
        self._check_package(str(entry), top_package(entry.value), locked.packages)

    def check_class_path(self, kind: str, path: str, bundled: Collection[str] = ()) -> None:
        """A plugin named as ``package.module:Class``. ``bundled`` are Jackfield's own packages."""
        package = top_package(path)
        if package in bundled:
            return
        known = {
            name: digest
            for each in self.distributions.values()
            for name, digest in each.packages.items()
        }
        self._check_package(f"{kind} plugin {path}", package, known)

    def check_source(self, kind: str, flag: str, source: str) -> None:
        """A module, by its package; a file, by its hash, wherever it lies."""
        if Path(source).suffix not in FILE_SUFFIXES:
            self.check_class_path(kind, source)
        elif file_hash(_existing(source)) not in self.files.values():
            raise self._refusal(f"{flag} {source} is not in it, or has changed")

    def _check_package(self, who: str, package: str, known: Mapping[str, str]) -> None:
        if package in self._unchanged:
            return
        if package not in known:
            raise self._refusal(f"package {package} of {who} is not in it")
        if package_hash(package) != known[package]:
            raise self._refusal(f"the files of package {package} of {who} have changed since")
        self._unchanged.add(package)

    def _refusal(self, what: str) -> PluginError:
        return PluginError(
            f"{FLAG} {self._source}: {what}; look at the change, then run `jackfield plugins lock`"
        )


def _inline(table: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in table.items()) + " }"


def _existing(file: str) -> Path:
    path = given_path(file)
    if not path.is_file():
        raise ConfigError(f"{file}: there is no such file")
    return path
