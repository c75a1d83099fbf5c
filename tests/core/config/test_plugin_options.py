"""The plugin options are the registry's kinds."""

from __future__ import annotations

from jackfield.config.foreign import FOREIGN_FLAGS
from jackfield.config.plan import PluginSource
from jackfield.config.plugins import PLUGIN_OPTIONS
from jackfield.config.settings import Settings, flag_of, make_settings
from jackfield.registry import KINDS


def test_every_kind_has_its_two_flags() -> None:
    known = {*map(flag_of, Settings.model_fields), *FOREIGN_FLAGS}
    for kind in KINDS.values():
        assert kind.flag in known and kind.plugin_flag in known


def test_a_plugin_can_be_given_for_every_kind_that_has_a_contract() -> None:
    flags = {kind: flag_of(option) for kind, option in PLUGIN_OPTIONS.items()}
    assert flags == {k.name: k.plugin_flag for k in KINDS.values() if k.contract is not None}


def test_sources_carry_their_kind() -> None:
    settings = make_settings({"tool_parser_plugin": ["a.py", "b.c"], "model_plugin": "m.py"})
    assert set(settings.plugin_sources) == {
        PluginSource("tool_parsers", "a.py"),
        PluginSource("tool_parsers", "b.c"),
        PluginSource("models", "m.py"),
    }
