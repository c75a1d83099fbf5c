"""Whichever weight files the checkpoint has; safetensors by Hugging Face's names where it can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from jackfield.checkpoint import check_weights, is_gguf, safetensors_files
from jackfield.contracts.loading import CheckpointFiles
from jackfield_load_formats.gguf import GgufLoadFormat
from jackfield_load_formats.mistral import MistralLoadFormat
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
        if is_gguf(files.directory):
            return GgufLoadFormat().iter_weights(files)
        weights = safetensors_files(files.directory)
        if weights is None:
            return PtLoadFormat().iter_weights(files)
        if all(path.name.startswith("consolidated") for path in weights.files):
            return MistralLoadFormat().iter_weights(files)
        return SafetensorsLoadFormat().iter_weights(files)
