"""Where a batch comes from and where its answers go: files of this machine, or HTTP addresses."""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit

from jackfield.errors import BatchError, ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 1.0
"""Between two attempts at an address; doubled each time."""
TIMEOUT_SECONDS = 60.0
_PIECE = 1 << 20


@contextmanager
def open_input(place: str) -> Iterator[BinaryIO]:
    """The input, from its beginning, in a file that can be read twice: what is fetched, or comes
    through a pipe, is written to a temporary one first. ``ConfigError`` where it cannot be read."""
    if is_address(place):
        with tempfile.TemporaryFile(prefix="jackfield-batch-") as copy:
            _attempt(lambda: _fetch(place, copy), f"the input {_shown(place)} cannot be fetched")
            copy.seek(0)
            yield copy
        return
    try:
        file = open(place, "rb")
    except OSError as error:
        raise ConfigError(f"the input {place} cannot be read: {error.strerror}") from None
    with file:
        if file.seekable():
            yield file
            return
        with tempfile.TemporaryFile(prefix="jackfield-batch-") as copy:
            shutil.copyfileobj(file, copy, _PIECE)
            copy.seek(0)
            yield copy


@contextmanager
def open_output(place: str, folder: str | None) -> Iterator[FileIO]:
    """The output, empty. An address gets it by PUT, once the block is left without an error; until
    then it is a file in ``folder``, which stays there if it cannot be sent: ``BatchError``."""
    if not is_address(place):
        try:
            file = open(place, "wb", buffering=0)
        except OSError as error:
            raise ConfigError(f"the output {place} cannot be written: {error.strerror}") from None
        with file:
            yield file
        return
    try:
        number, name = tempfile.mkstemp(".jsonl", "jackfield-batch-", folder)
    except OSError as error:
        raise ConfigError(f"--output-tmp-dir {folder}: {error.strerror}") from None
    try:
        with FileIO(number, "wb") as file:
            yield file
    except BaseException:
        log.warning("the answers so far are in %s", name)
        raise
    _attempt(
        lambda: _send(place, Path(name)),
        f"the answers are in {name}; they cannot be sent to {_shown(place)}",
    )
    os.unlink(name)


def write_line(file: FileIO, line: bytes) -> None:
    """Writes all of it, at once: what is answered stays answered, whatever happens next."""
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BatchError(f"the output cannot be written: {error.strerror}") from None


def check_places(given: str, wanted: str) -> None:
    """Refuses to write over the input."""
    if is_address(given) or is_address(wanted) or not os.path.exists(wanted):
        return
    if os.path.exists(given) and os.path.samefile(given, wanted):
        raise ConfigError(f"input and output are the same file, {wanted}")


def is_address(place: str) -> bool:
    """Whether it is fetched or sent, and no file of this machine."""
    return place.startswith(("http://", "https://"))


def lines_of(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """The lines that are not empty, without their ends. Of one longer than ``max_bytes`` there
    are ``max_bytes + 1``; the rest is passed over."""
    while line := file.readline(max_bytes + 1):
        rest = line
        while len(rest) > 0 and not rest.endswith(b"\n"):
            rest = file.readline(_PIECE)
        line = line.rstrip(b"\r\n")
        if line.strip():
            yield line


def count_lines(file: BinaryIO) -> int:
    """How many lines there are, roughly: empty ones count. The file is at its beginning again."""
    count, last = 0, b"\n"
    while piece := file.read(_PIECE):
        count += piece.count(b"\n")
        last = piece[-1:]
    file.seek(0)
    return count + (last != b"\n")


def _fetch(address: str, file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
    with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response:
        shutil.copyfileobj(response, file, _PIECE)


def _send(address: str, path: Path) -> None:
    with path.open("rb") as file:
        headers = {
            "Content-Type": "application/jsonl",
            "Content-Length": str(path.stat().st_size),
        }
        request = urllib.request.Request(address, data=file, headers=headers, method="PUT")
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            pass


def _attempt(work: Callable[[], T], complaint: str) -> T:
    """Does it, again where that may help; ``BatchError`` with the complaint at last."""
    pause = FIRST_PAUSE_SECONDS
    for number in range(1, ATTEMPTS + 1):
        try:
            return work()
        except urllib.error.HTTPError as error:
            reason = f"the server answered {error.code}"
            is_final = error.code < 500 and error.code not in (408, 429)
            error.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason, is_final = str(error), isinstance(error, ValueError)
        if is_final or number == ATTEMPTS:
            break
        log.warning("%s: %s; trying again in %g s", complaint, reason, pause)
        time.sleep(pause)
        pause *= 2
    raise BatchError(f"{complaint}: {reason}")


def _shown(address: str) -> str:
    """The address without what may be secret in it."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"
