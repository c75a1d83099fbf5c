"""Weights from safetensors files through the library fastsafetensors: straight to the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from jackfield.checkpoint import check_safetensors
from jackfield.contracts.loading import CheckpointFiles
from jackfield_load_formats.extras import need
from jackfield_load_formats.progress import progress
from jackfield_load_formats.safetensors import weight_files


class FastSafetensorsLoadFormat:
    """Implements ``LoadFormat``. One file after the other is copied to the device as a whole, and
    its tensors are views of the copy."""

    name: ClassVar[str] = "fastsafetensors"
    api_version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class Options:
        """How files travel."""

        gds: bool = field(
            default=False,
            metadata={"help": "GPUDirect Storage: from the disk to the GPU past the host's memory"},
        )

    def __init__(self, *, options: Options | None = None) -> None:
        need(self.name, "fastsafetensors", "fastsafetensors")
        self._options = options or self.Options()

    def check(self, files: CheckpointFiles) -> None:
        check_safetensors(weight_files(files))

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        from fastsafetensors import fastsafe_open

        weights = weight_files(files)
        check_safetensors(weights)
        device = "cpu" if files.device is None else str(files.device)
        total = sum(path.stat().st_size for path in weights.files)
        with progress(total, files.show_progress) as advance:
            for path in weights.files:
                opened = fastsafe_open(
                    filenames=[str(path)], device=device, nogds=not self._options.gds
                )
                with opened as file:
                    for name in file.keys():
                        yield name, file.get_tensor(name)
                advance(path.stat().st_size)
