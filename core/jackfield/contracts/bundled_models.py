"""A model that comes with a distribution, so that it can be served with no download. No torch.

Kind: ``jackfield.bundled_models`` (``--model``).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol


class BundledModel(Protocol):
    """A checkpoint among a package's files; made as ``cls()`` when ``--model`` names it.

    An existing directory of the same name goes before it, the hub after it. Importing the module
    must cost nothing: no checkpoint is opened, and neither torch nor transformers is imported.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]
    tool_parser: ClassVar[str | None]
    """The ``tool_parsers`` plugin to take where the user names none."""
    reasoning_parser: ClassVar[str | None]
    """The ``reasoning_parsers`` plugin to take where the user names none."""

    def directory(self) -> Path:
        """Where the checkpoint is: configuration, weights and tokenizer as Hugging Face lays them
        out. Called once, by the process that plans; must stay until the program ends."""
        ...
