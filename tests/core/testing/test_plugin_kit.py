"""The kit for plugins of any kind finds what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jackfield.testing
from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import BrokenPluginError, IncompatiblePluginError
from jackfield.testing import PluginContract


class Good:
    name = "good"
    api_version = 1

    def check(self, files: CheckpointFiles) -> None: ...
    def iter_weights(self, files: CheckpointFiles) -> Iterator[Any]:
        yield from ()


class WithoutWeights:
    name = "without"
    api_version = 1

    def check(self, files: CheckpointFiles) -> None: ...


class Old(Good):
    api_version = 0


class TestGood(PluginContract):
    kind = "load_formats"
    plugin = Good


def kit(broken: type[Any]) -> PluginContract:
    class Kit(PluginContract):
        kind = "load_formats"
        plugin = broken

    return Kit()


def test_a_missing_method_and_an_old_contract_are_found() -> None:
    with pytest.raises(BrokenPluginError, match="lacks iter_weights"):
        kit(WithoutWeights).test_the_registry_takes_it()
    with pytest.raises(IncompatiblePluginError, match="version 0"):
        kit(Old).test_the_registry_takes_it()


def test_a_name_with_spaces_and_a_class_in_a_function_are_found() -> None:
    class Local(Good):
        name = "two words"

    with pytest.raises(AssertionError):
        kit(Local).test_it_has_a_name_that_can_be_typed()
    with pytest.raises(AttributeError):
        kit(Local).test_a_process_can_find_it_by_its_path()


def test_every_kit_can_be_asked_for_by_name() -> None:
    folder = Path(jackfield.testing.__file__).parent
    for name in jackfield.testing.__all__:
        found = getattr(jackfield.testing, name)
        assert isinstance(found, type) and found.__name__ == name
        assert Path(folder, f"{found.__module__.rpartition('.')[2]}.py").is_file()
    with pytest.raises(AttributeError):
        _ = jackfield.testing.NoSuchContract
