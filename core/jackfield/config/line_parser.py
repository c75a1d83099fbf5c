"""Command lines of which what is wrong is one line, as it is of every other error."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from jackfield.errors import ConfigError


class LineParser(argparse.ArgumentParser):
    """Raises ``ConfigError`` for what is wrong, without the usage; flags are written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message[:1].lower() + message[1:].replace("\n", " "))


def positive(text: str) -> int:
    """A whole number above 0, as ``type`` of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def positive_number(text: str) -> float:
    """The same for a number that may have a fraction, or be infinite."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
