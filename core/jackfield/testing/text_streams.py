"""What the parsers' kits share: splitting text, timing, and looking at a fresh process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from hypothesis import HealthCheck, settings
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


def assert_linear(run: Callable[[list[str]], object], unit: str) -> None:
    """Four times the text may take at most nine times as long (a quadratic cost takes 16);
    best of several, in CPU time of this process."""

    def seconds(count: int) -> float:
        text = unit * count
        pieces = [text[at : at + 4] for at in range(0, len(text), 4)]
        best = float("inf")
        for _ in range(3):
            begin = time.process_time()
            run(pieces)
            best = min(best, time.process_time() - begin)
        return best

    count = max(1, 8_000 // len(unit))
    small, large = seconds(count), seconds(4 * count)
    assert large < 9 * small, f"{small:.4f} s for n, {large:.4f} s for 4 n: {unit[:60]!r}"


def assert_imports_no_torch(module: str) -> None:
    """A parser runs in the API process, which must not load torch or transformers."""
    code = (
        f"import sys, {module}; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]", f"{module} imports {result.stdout.strip()}"
