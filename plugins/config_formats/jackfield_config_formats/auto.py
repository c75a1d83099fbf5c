"""Whichever configuration the checkpoint has; ``config.json`` where it has several."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from jackfield.checkpoint import is_gguf
from jackfield_config_formats.gguf import GgufConfigFormat
from jackfield_config_formats.hf import HfConfigFormat
from jackfield_config_formats.mistral import PARAMS, MistralConfigFormat


class AutoConfigFormat:
    """Implements ``ConfigFormat``."""

    name: ClassVar[str] = "auto"
    api_version: ClassVar[int] = 1

    def read(self, directory: Path) -> dict[str, object]:
        if is_gguf(directory):
            return GgufConfigFormat().read(directory)
        has_params = (directory / PARAMS).is_file()
        if has_params and not (directory / "config.json").is_file():
            return MistralConfigFormat().read(directory)
        return HfConfigFormat().read(directory)
