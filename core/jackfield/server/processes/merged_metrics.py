"""One exposition for several processes that serve together.

What a process counts of its own requests is added up, and so is what it uses of the machine. What
every process has from the engine is the same in all of them, or was a moment ago: the largest is
taken. Counts of processes that have ended stay in the sums, so that no counter goes down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

_SUMMED_TYPES = frozenset({"counter", "histogram", "summary"})
_USED = frozenset(
    {
        "process_cpu_seconds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
    }
)
"""What processes use of the machine: added up, as long as they live."""

SampleKey = tuple[str, tuple[tuple[str, str], ...]]


def merged(live: Sequence[bytes], ended: Sequence[bytes], of_engine: Collection[str]) -> bytes:
    """The expositions of ``live`` and ``ended`` processes as one. ``of_engine``: families that
    each process has from the engine."""
    families: dict[str, _Family] = {}
    for metric in _families(live):
        _take(families, metric, _is_summed(metric, of_engine) or metric.name in _USED)
    for metric in _families(ended):
        if _is_summed(metric, of_engine):
            _take(families, metric, is_summed=True)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Made([family.metric() for family in families.values()]))
    return generate_latest(registry)


def _families(texts: Iterable[bytes]) -> Iterator[Metric]:
    for text in texts:
        yield from text_string_to_metric_families(text.decode())


def _is_summed(metric: Metric, of_engine: Collection[str]) -> bool:
    return (
        metric.type in _SUMMED_TYPES and metric.name not in of_engine and metric.name not in _USED
    )


def _take(families: dict[str, _Family], metric: Metric, is_summed: bool) -> None:
    family = families.get(metric.name)
    if family is None:
        family = families[metric.name] = _Family(metric)
    for sample in metric.samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        known = family.values.get(key)
        if known is None:
            family.values[key] = sample.value
        else:
            family.values[key] = known + sample.value if is_summed else max(known, sample.value)


class _Family:
    """One family while it is put together; samples in the order in which they came."""

    def __init__(self, metric: Metric) -> None:
        self._name, self._text, self._type = metric.name, metric.documentation, metric.type
        self.values: dict[SampleKey, float] = {}

    def metric(self) -> Metric:
        made = Metric(self._name, self._text, self._type)
        for (name, labels), value in self.values.items():
            made.add_sample(name, dict(labels), value)
        return made


class _Made(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics
