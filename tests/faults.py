"""Faults on purpose: something fails at its n-th call, once or from then on."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class InjectedError(Exception):
    """Raised by a fault; nothing in the code under test knows it."""


class Fault:
    """Counts calls of what it stands before. ``happened`` says whether it has failed at all."""

    def __init__(self, at: int, forever: bool, error: type[Exception] = InjectedError) -> None:
        self.happened = False
        self._left = at
        self._forever = forever
        self._error = error

    def strike(self) -> None:
        """One call."""
        self._left -= 1
        if self._left == 0 or (self._left < 0 and self._forever):
            self.happened = True
            raise self._error("injected")


@contextmanager
def failing(owner: Any, name: str, fault: Fault) -> Iterator[None]:
    """``owner.name`` fails as the fault says while the block runs."""
    real = getattr(owner, name)

    def call(*args: Any, **keywords: Any) -> Any:
        fault.strike()
        return real(*args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        yield


F_SETPIPE_SZ = 1031


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that takes no more, and that nobody reads."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x")
    except BlockingIOError:
        os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


@contextmanager
def stderr_to(descriptor: int) -> Iterator[None]:
    """Processes that are started in the block have this standard error."""
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
