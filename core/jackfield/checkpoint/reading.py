"""A checkpoint's small files: what is no file, or endless, or nests for ever, is refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from jackfield.errors import CheckpointError

MAX_BYTES = 256 << 20
"""No configuration, index or template is as long; a tokenizer of a million tokens has a tenth."""


def read_bytes(path: Path) -> bytes:
    """A whole file. ``CheckpointError`` for one that is none or too long; ``FileNotFoundError`` and
    ``NotADirectoryError`` where there is nothing."""
    try:
        # Looked at before it is opened: opening a pipe would wait for its writer.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"cannot read {path}: it is no file")
        if status.st_size > MAX_BYTES:
            raise CheckpointError(
                f"cannot read {path}: it has {status.st_size} bytes, more than {MAX_BYTES}"
            )
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from None


def read_text(path: Path) -> str:
    """A whole file as UTF-8; ``CheckpointError`` for anything else."""
    try:
        return read_bytes(path).decode("utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None


def parse_json(data: bytes | str, path: Path) -> object:
    """The value of a file's JSON; ``CheckpointError`` where it is none."""
    try:
        value: object = json.loads(data)
    except RecursionError:
        raise CheckpointError(f"cannot read {path}: it nests too deep") from None
    except ValueError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    return value


def read_json_object(path: Path) -> dict[str, object]:
    """A file's one JSON object; ``CheckpointError`` where it holds anything else."""
    try:
        value = parse_json(read_bytes(path), path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"cannot read {path}: it is not a JSON object")
    return value


def read_optional_json(path: Path) -> dict[str, object]:
    """The same; empty where there is no file."""
    return read_json_object(path) if os.path.lexists(path) else {}
