"""Paths as users give them."""

from __future__ import annotations

import os
from pathlib import Path


def given_path(text: str) -> Path:
    """The path, with the home for ``~``; that of a user who does not exist stays as it is, and is
    not found, where ``Path.expanduser`` raises ``RuntimeError``."""
    return Path(os.path.expanduser(text))
