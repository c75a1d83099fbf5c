"""A Prometheus histogram that costs one bisection an observation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily


class Histogram:
    """Counts by bucket; exported at scrape time. For one event loop: no lock."""

    __slots__ = ("_bounds", "_counts", "_help", "_name", "_sum")

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._help = text
        self._bounds = list(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Counts ``value``, ``count`` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    @property
    def total(self) -> float:
        """Of all values."""
        return self._sum

    def export(self, labels: dict[str, str], name: str | None = None) -> HistogramMetricFamily:
        """The histogram as Prometheus wants it, under its own name or another one: cumulative, the
        last bucket without a bound."""
        family = HistogramMetricFamily(name or self._name, self._help, labels=list(labels))
        add_counts(family, labels, self._bounds, self._counts, self._sum)
        return family


def add_counts(
    family: HistogramMetricFamily,
    labels: Mapping[str, str],
    bounds: Sequence[float],
    counts: Sequence[int],
    total: float,
) -> None:
    """Adds to a family what was counted by bucket, the last one without a bound; ``total``: of the
    values."""
    names = [*map(str, map(float, bounds)), "+Inf"]
    buckets = list(zip(names, map(float, accumulate(counts)), strict=True))
    family.add_metric(list(labels.values()), buckets=buckets, sum_value=total)
