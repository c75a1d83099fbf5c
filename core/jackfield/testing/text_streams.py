"""What the parsers' kits share: splitting text, timing, and looking at a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LAW = settings(
    max_examples=80,
    deadline=None,
    # A kit is inherited by every plugin's test class; shared machines stall.
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)

CUTS = st.lists(st.floats(0, 1), max_size=12)
"""Where to cut a text, as fractions of its length."""


def split(text: str, cuts: Sequence[float]) -> list[str]:
    """The text in pieces, some of them empty."""
    places = [0, *sorted(round(cut * len(text)) for cut in cuts), len(text)]
    return [text[begin:end] for begin, end in pairwise(places)]


def hold(law: Callable[..., None], *strategies: st.SearchStrategy[Any], examples: int = 80) -> None:
    """Runs a law on examples of what the strategies make: for kits whose strategies or number of
    examples are a matter of the plugin's test class."""
    settings(LAW, max_examples=examples)(given(*strategies)(law))()


def assert_linear(run: Callable[[list[str]], object], unit: str) -> None:
    """Four times the text may take at most nine times as long (a quadratic cost takes 16), in
    CPU time of this thread. Whoever is disturbed while measured gets more tries; the best of
    all of them counts."""
    count = max(1, 8_000 // len(unit))
    small = large = float("inf")
    for _ in range(6):
        small = min(small, _seconds(run, unit * count))
        large = min(large, _seconds(run, unit * (4 * count)))
        if large < 9 * small:
            return
    raise AssertionError(f"{small:.4f} s for n, {large:.4f} s for 4 n: {unit[:60]!r}")


def _seconds(run: Callable[[list[str]], object], text: str) -> float:
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)]
    begin = time.thread_time()
    run(pieces)
    return time.thread_time() - begin


@cache
def assert_imports_no_torch(module: str) -> None:
    """A parser runs in the API process, which must not load torch or transformers."""
    code = (
        f"import sys, {module}; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    # It finds what this process finds, installed or not.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]", f"{module} imports {result.stdout.strip()}"
