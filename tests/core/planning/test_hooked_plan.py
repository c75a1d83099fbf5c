"""Hooks that find models and change their configuration; options of plugins not in use."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.checkpoints import make

from jackfield.config.settings import Settings, make_settings
from jackfield.errors import BrokenPluginError, ConfigError
from jackfield.hooks import Hooks, hookimpl
from jackfield.planning import make_plan
from jackfield.registry import PluginEntry, Registry

ENTRY = PluginEntry("hooks", "store", "acme", "1.0", "hooks_of_a_plan")


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    made = types.ModuleType("hooks_of_a_plan")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def test_a_hook_finds_the_model_and_another_changes_its_config(module: types.ModuleType) -> None:
    directory = make("Qwen3ForCausalLM")

    @hookimpl
    def resolve_model(model: str, settings: Settings) -> Path | None:
        assert settings.model == model
        return directory if model == "store://tiny" else None

    @hookimpl
    def adjust_config(config: Mapping[str, object], directory: Path) -> Mapping[str, object]:
        assert (directory / "config.json").is_file()
        return {**config, "max_position_embeddings": 77}

    for function in (resolve_model, adjust_config):
        setattr(module, function.__name__, function)
    hooks = Hooks([ENTRY])
    plan = make_plan(make_settings({"model": "store://tiny"}), Registry(), hooks)
    assert plan.directory == directory
    assert plan.engine.worker.max_model_len == 77
    assert plan.served_model_names == ("store://tiny",)
    plan = make_plan(make_settings({"model": str(directory)}), Registry(), hooks)
    assert plan.directory == directory


@pytest.mark.parametrize("answer", ["/no/such/directory", 3])
def test_a_hook_that_finds_no_directory_is_named(module: types.ModuleType, answer: object) -> None:
    @hookimpl
    def resolve_model(model: str) -> object:
        return answer

    module.resolve_model = resolve_model  # type: ignore[attr-defined]
    with pytest.raises(BrokenPluginError, match=r"'store' of acme 1\.0 .* which is no directory"):
        make_plan(make_settings({"model": "x"}), Registry(), Hooks([ENTRY]))


def test_an_option_for_a_plugin_that_is_not_in_use_is_refused() -> None:
    model = str(make("Qwen3ForCausalLM"))
    settings = make_settings({"model": model, "plugin_option": "priority.x=1"})
    with pytest.raises(ConfigError, match="no plugin in use is called so"):
        make_plan(settings, Registry.for_settings(settings))
