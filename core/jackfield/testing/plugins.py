"""The laws of a plugin of any kind. Subclass ``PluginContract`` in a test file::

    class TestMine(PluginContract):
        kind = "load_formats"
        plugin = MyLoadFormat

Kinds with laws of their own (parsers, schedulers) have a kit of their own besides.
"""

from __future__ import annotations

import importlib
import re
from typing import Any, ClassVar

from jackfield.registry import KINDS
from jackfield.registry.conformance import check_class


def assert_conforms(kind: str, plugin: object) -> None:
    """What the registry asks of a class before it takes it; of what only makes one, nothing."""
    if not isinstance(plugin, type):
        return
    contract = KINDS[kind].contract
    assert contract is not None, f"{kind} plugins cannot be written yet"
    # The contract itself, so that its members are compared whatever was imported before.
    importlib.import_module(contract.partition(":")[0])
    check_class(KINDS[kind], plugin.__name__, plugin, "correct it")


class PluginContract:
    """What the registry asks of a class before it takes it."""

    kind: ClassVar[str]
    plugin: ClassVar[type[Any]]

    def test_the_registry_takes_it(self) -> None:
        assert_conforms(self.kind, self.plugin)

    def test_it_has_a_name_that_can_be_typed(self) -> None:
        name = getattr(self.plugin, "name", self.plugin.__name__)
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", name)

    def test_a_process_can_find_it_by_its_path(self) -> None:
        """Processes exchange names: a class inside a function would be lost on the way."""
        found: Any = importlib.import_module(self.plugin.__module__)
        for part in self.plugin.__qualname__.split("."):
            found = getattr(found, part)
        assert found is self.plugin
