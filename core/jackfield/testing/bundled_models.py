"""The laws of a bundled model. Subclass ``BundledModelContract`` in a test file::

class TestMine(BundledModelContract):
    model = MyModel
"""

from __future__ import annotations

import json
from typing import ClassVar

from jackfield.contracts.bundled_models import BundledModel
from jackfield.testing.plugins import assert_conforms
from jackfield.testing.text_streams import assert_imports_no_torch


class BundledModelContract:
    """Laws that hold for every bundled model."""

    model: ClassVar[type[BundledModel]]

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("bundled_models", type(self).model)

    def test_importing_it_costs_nothing(self) -> None:
        assert_imports_no_torch(self.model.__module__)

    def test_its_directory_has_a_checkpoint(self) -> None:
        directory = self.model().directory()
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        assert config.get("architectures"), "config.json names no architecture"

    def test_its_parsers_are_names(self) -> None:
        for name in (self.model.tool_parser, self.model.reasoning_parser):
            assert name is None or isinstance(name, str)
