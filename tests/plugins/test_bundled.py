"""Every plugin that comes with Jackfield, by the kit that third parties use."""

from __future__ import annotations

import pytest

from jackfield.registry import KINDS, PluginEntry, Registry
from jackfield.testing import PluginContract

BUNDLED = [entry for kind in KINDS for entry in Registry(bundled_only=True).list(kind)]


@pytest.mark.parametrize("entry", BUNDLED, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_a_bundled_plugin_keeps_the_laws_of_its_kind(entry: PluginEntry) -> None:
    loaded = Registry().load(entry.kind, entry.name)

    class Kit(PluginContract):
        kind = entry.kind
        plugin = loaded

    kit = Kit()
    kit.test_the_registry_takes_it()
    kit.test_it_has_a_name_that_can_be_typed()
    kit.test_a_process_can_find_it_by_its_path()
    # Models are found by the checkpoint's word for them, everything else by its own.
    assert entry.kind == "models" or loaded.name == entry.name
