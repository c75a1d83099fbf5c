"""One-of-N plugins, by name: listed without importing anything, imported when chosen."""

from jackfield.registry.kinds import HOOKS, KINDS, Kind
from jackfield.registry.lookup import Registry
from jackfield.registry.metadata import PluginEntry, installed_entries

__all__ = ["HOOKS", "KINDS", "Kind", "PluginEntry", "Registry", "installed_entries"]
