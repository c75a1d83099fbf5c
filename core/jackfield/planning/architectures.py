"""Whether transformers has a model of that name, without importing it: that takes seconds."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from jackfield.errors import CheckpointError


def refuse_unknown(names: Sequence[str]) -> None:
    """``CheckpointError`` if transformers knows none of these architectures.

    Its list of automatic classes is read as text. Where it cannot be found, the engine will see.
    """
    listed = _automatic_classes()
    if names and listed is not None and not any(f'"{name}"' in listed for name in names):
        raise CheckpointError(
            f"architecture {', '.join(names)} is unknown: no models plugin has it, nor has the "
            "installed transformers; install a plugin for it or upgrade transformers, or pass "
            "--trust-remote-code if the checkpoint brings its own code"
        )


def _automatic_classes() -> str | None:
    package = importlib.util.find_spec("transformers")
    for location in (package and package.submodule_search_locations) or ():
        listing = Path(location, "models", "auto", "modeling_auto.py")
        if listing.is_file():
            return listing.read_text(encoding="utf-8")
    return None
