"""Whichever weight files the checkpoint has; safetensors where it has both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from jackfield.checkpoint import check_weights, safetensors_files
from jackfield.contracts.loading import CheckpointFiles
from jackfield_load_formats.pt import PtLoadFormat
from jackfield_load_formats.safetensors import SafetensorsLoadFormat


class AutoLoadFormat:
    """Implements ``LoadFormat``."""

    name: ClassVar[str] = "auto"
    api_version: ClassVar[int] = 1

    def check(self, files: CheckpointFiles) -> None:
        check_weights(files.directory)

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        check_weights(files.directory)
        if safetensors_files(files.directory) is not None:
            return SafetensorsLoadFormat().iter_weights(files)
        return PtLoadFormat().iter_weights(files)
