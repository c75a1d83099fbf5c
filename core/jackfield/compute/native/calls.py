"""Calls of C functions, which can be noted to be made again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Call = tuple["NativeFunction", tuple[Any, ...]]
"""A function and what it was called with."""

_notes: ContextVar[list[Call] | None] = ContextVar("_notes", default=None)


class NativeFunction:
    """``name`` of a library, which takes ``types``; what it returns is ``result``."""

    def __init__(
        self,
        library: ctypes.CDLL,
        name: str,
        types: Sequence[type],
        result: type | None = None,
    ) -> None:
        self.types = tuple(types)
        self.plain = library[name]
        """The function without its notes."""
        self.plain.argtypes, self.plain.restype = self.types, result

    def __call__(self, *arguments: object) -> Any:
        notes = _notes.get()
        if notes is not None:
            notes.append((self, arguments))
        return self.plain(*arguments)


@contextmanager
def noted_calls() -> Iterator[list[Call]]:
    """The calls that are made meanwhile by this thread."""
    calls: list[Call] = []
    token = _notes.set(calls)
    try:
        yield calls
    finally:
        _notes.reset(token)


def are_noted() -> bool:
    """Whether calls are noted now: memory that is kept from call to call must not be used."""
    return _notes.get() is not None
