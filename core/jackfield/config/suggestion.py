"""``did you mean``: the known name that an unknown one was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name``, case and hyphens aside; None if none is like it."""
    plain = {_plain(candidate): candidate for candidate in known}
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], quote: str = "'") -> str:
    """``; did you mean 'hermes'?``, or nothing."""
    match = closest(name, known)
    return "" if match is None else f"; did you mean {quote}{match}{quote}?"


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
