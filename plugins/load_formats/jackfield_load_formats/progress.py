"""The bar that is shown while weights are read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(total_bytes: int, show: bool) -> Iterator[Callable[[int], object]]:
    """Gives the function to call with the bytes just read. Shows nothing where standard error is no
    terminal: a log that takes no more must not keep a model from being loaded."""
    if not show or not sys.stderr.isatty():
        yield lambda num_bytes: None
        return
    # Most loads show no bar, and the import takes 30 ms.
    from tqdm import tqdm

    with tqdm(
        total=total_bytes, desc="Loading weights", unit="B", unit_scale=True, unit_divisor=1024
    ) as bar:
        yield bar.update
