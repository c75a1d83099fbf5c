"""Libraries that are not there unless the user installed them."""

from __future__ import annotations

import importlib.util

from jackfield.errors import ConfigError


def need(load_format: str, module: str, extra: str) -> None:
    """Raises ``ConfigError`` with the line that installs ``module``, unless it is there."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"--load-format {load_format} needs the package {module}: "
            f"pip install 'jackfield[{extra}]'"
        )
