"""When Python looks for garbage in a process that serves: rarely, and not among what stays.

A collection walks every container that is younger than its generation; with a model's modules and
tables loaded the oldest has hundreds of thousands, and walking them costs as much as serving a
hundred requests. A step or a request leaves hardly any cycle behind.
"""

from __future__ import annotations

import gc

_THRESHOLDS = (50_000, 20, 50)


def collect_rarely() -> None:
    """From now on only after many more allocations. For the whole process."""
    gc.set_threshold(*_THRESHOLDS)


def settle() -> None:
    """What there is now stays: collections need not look at it again. Takes about 0.1 s."""
    gc.collect()
    gc.freeze()
