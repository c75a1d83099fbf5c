"""Reading a checkpoint's weights. Imports no torch, so that ``check`` can run before anything heavy.

Kind: ``jackfield.load_formats`` (``--load-format``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """A checkpoint on this machine."""

    directory: Path
    config: Mapping[str, object]
    show_progress: bool = False


class LoadFormat(Protocol):
    """A way to read weights; made as ``cls()``."""

    name: ClassVar[str]
    api_version: ClassVar[int]

    def check(self, files: CheckpointFiles) -> None:
        """Raises ``CheckpointError`` (file and tensor named) for what can be seen without reading
        the weights: missing shards, truncated files. Cheap; imports no torch where possible."""
        ...

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        """Every tensor once, on the CPU, in file order; may be a view of a mapped file."""
        ...
