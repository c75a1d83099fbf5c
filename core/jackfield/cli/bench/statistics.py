"""Percentiles of a run, and the one place that prints and saves them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear interpolation between the two nearest ranks; values need not be sorted."""
    ordered = sorted(values)
    position = percent / 100.0 * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def spread(name: str, seconds: Sequence[float], percents: Sequence[float]) -> dict[str, float]:
    """``mean_NAME_ms``, ``median_``, ``std_`` and ``pP_NAME_ms``; empty without values."""
    if not seconds:
        return {}
    values = {
        f"mean_{name}_ms": statistics.fmean(seconds) * 1e3,
        f"median_{name}_ms": statistics.median(seconds) * 1e3,
        f"std_{name}_ms": statistics.pstdev(seconds) * 1e3,
    }
    for percent in percents:
        values[f"p{percent:g}_{name}_ms"] = percentile(seconds, percent) * 1e3
    return values


def report(title: str, values: Mapping[str, object], path: str | None) -> None:
    """Prints one line a value, and writes them as JSON to ``path`` if given."""
    print(f"{' ' + title + ' ':=^60}")
    for key, value in values.items():
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        print(f"{key + ':':<42}{shown:>18}")
    print("=" * 60)
    if path is not None:
        Path(path).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
