"""Weights from one NumPy archive, ``weights.npz``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

FILE = "weights.npz"


class NpzLoadFormat:
    """Reads one tensor at a time: the archive's members are the checkpoint's tensor names."""

    name: ClassVar[str] = "npz"
    api_version: ClassVar[int] = 1

    def check(self, files: CheckpointFiles) -> None:
        """Opens the archive's directory; reads no tensor and imports no torch."""
        path = files.directory / FILE
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile as error:
            raise CheckpointError(f"{path} is damaged or cut off ({error})") from None
        if not names:
            raise CheckpointError(f"{path} has no tensors")

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        """Every tensor once; a pickled one is refused."""
        import torch  # the engine's process has it; `check` runs where it may be missing

        path: Path = files.directory / FILE
        self.check(files)
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                try:
                    yield name, torch.from_numpy(archive[name])
                except (ValueError, zipfile.BadZipFile, zlib.error) as error:
                    raise CheckpointError(f"tensor {name} of {path}: {error}") from None
