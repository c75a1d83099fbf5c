"""The laws of a configuration format. Subclass ``ConfigFormatContract`` in a test file::

class TestMine(ConfigFormatContract):
    config_format = MyFormat

    def write(self, directory):
        ...  # the files of a small model's configuration
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest

from jackfield.checkpoint import architectures
from jackfield.contracts.config_format import ConfigFormat
from jackfield.errors import CheckpointError
from jackfield.testing.plugins import assert_conforms
from jackfield.testing.text_streams import assert_imports_no_torch


class ConfigFormatContract:
    """Laws that hold for every configuration format."""

    config_format: ClassVar[type[ConfigFormat]]

    def write(self, directory: Path) -> None:
        """Writes a configuration that can be read."""
        raise NotImplementedError("a kit's subclass says how its format is written")

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("config_formats", type(self).config_format)

    def test_importing_it_imports_no_torch(self) -> None:
        assert_imports_no_torch(self.config_format.__module__)

    def test_it_names_an_architecture(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        assert architectures(self.config_format().read(tmp_path))

    def test_it_can_cross_a_process_border(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        config = self.config_format().read(tmp_path)
        assert json.loads(json.dumps(config)) == config

    def test_reading_twice_gives_the_same_and_changes_no_file(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        one, two = self.config_format().read(tmp_path), self.config_format().read(tmp_path)
        assert one == two and one is not two
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    def test_an_empty_directory_is_refused_in_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError) as error:
            self.config_format().read(tmp_path)
        assert "\n" not in str(error.value)
