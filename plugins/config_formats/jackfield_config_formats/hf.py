"""Hugging Face's ``config.json``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from jackfield.checkpoint import read_config


class HfConfigFormat:
    """Implements ``ConfigFormat``: the file as it is."""

    name: ClassVar[str] = "hf"
    api_version: ClassVar[int] = 1

    def read(self, directory: Path) -> dict[str, object]:
        return read_config(directory)
