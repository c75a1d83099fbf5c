"""The plugins in use, as `/version`, the start-up lines and the metrics tell them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from jackfield.config.paths import given_path
from jackfield.registry.files import file_hash, plugin_file
from jackfield.registry.kinds import KINDS
from jackfield.registry.lookup import Registry, is_class_path

GIVEN = "given at the start"
"""Instead of a distribution, of a plugin that was named by its class."""


@dataclass(frozen=True, slots=True)
class ActivePlugin:
    """One plugin in use. ``distribution`` is the file or module of one that was never packaged;
    ``api_version`` is None where only its class says it; ``sha256`` is that of its file."""

    kind: str
    name: str
    distribution: str
    version: str
    api_version: int | None
    sha256: str

    @property
    def origin(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {self.version}".rstrip()

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def active_plugin(registry: Registry, kind: str, name: str) -> ActivePlugin:
    """What the registry finds under a name. Imports nothing but what the user gave as a file."""
    if is_class_path(name):
        return ActivePlugin(kind, name, GIVEN, "", None, file_hash(plugin_file(name)))
    wanted = name.replace("-", "_")
    for offer in registry.given(kind):
        if offer.name.replace("-", "_") == wanted:
            stated: int = offer.found.api_version
            path = given_path(offer.source)
            found = path if path.is_file() else plugin_file(offer.source)
            return ActivePlugin(kind, name, offer.source, "", stated, file_hash(found))
    for entry in registry.list(kind):
        if entry.name.replace("-", "_") == wanted:
            digest = file_hash(plugin_file(entry.value))
            version = entry.api_version
            if entry.is_bundled and kind in KINDS:
                # It came with the contract.
                version = max(KINDS[kind].api_versions)
            return ActivePlugin(kind, name, entry.distribution, entry.version, version, digest)
    return ActivePlugin(kind, name, GIVEN, "", None, "")
