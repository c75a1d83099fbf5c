"""In which file and by which names a checkpoint describes itself. No torch.

Kind: ``jackfield.config_formats`` (``--config-format``).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol


class ConfigFormat(Protocol):
    """A dialect of model configurations; made as ``cls()``."""

    name: ClassVar[str]
    api_version: ClassVar[int]

    def read(self, directory: Path) -> dict[str, object]:
        """The configuration by the names of Hugging Face's ``config.json``: values that JSON has.

        At least ``architectures``, a list of names of ``models`` plugins, and what these read.
        ``directory`` is the path of the file where the model is a GGUF file.
        Called once, by the process that plans; ``--hf-overrides`` are laid over what it returns.
        Raises ``CheckpointError``, in one line that names the file, where the directory has no
        such configuration or it says what cannot be served.
        """
        ...
