"""Reading a checkpoint's weights. Imports no torch: ``check`` runs before anything heavy.

Kind: ``jackfield.load_formats`` (``--load-format``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """A checkpoint on this machine; ``directory`` is the file where the model is a GGUF file.

    ``wanted`` is what the model asks for, checkpoint name to full shape
    (``Model.weight_shapes``), with the ``dtype`` and ``device`` it is loaded to; known to
    ``iter_weights``, not to ``check``. A format that reads files may ignore it.
    """

    directory: Path
    config: Mapping[str, object]
    show_progress: bool = False
    wanted: Mapping[str, tuple[int, ...]] | None = None
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    max_parallel: int | None = None
    """Files that may be read at once; None: as the format likes."""


class LoadFormat(Protocol):
    """A way to read weights; made as ``cls()``."""

    name: ClassVar[str]
    api_version: ClassVar[int]

    def check(self, files: CheckpointFiles) -> None:
        """Raises ``CheckpointError`` (file and tensor named) for what can be seen without reading
        the weights: missing shards, truncated files. Cheap; imports no torch where possible."""
        ...

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        """Every tensor once, in file order; may be a view of a mapped file. A tensor is not
        changed after it was given out: a layer may keep it."""
        ...
