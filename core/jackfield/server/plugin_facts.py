"""Which plugins a server runs: for ``/version`` and as an info metric."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from jackfield.registry.active import ActivePlugin

LABELS = ("kind", "name", "distribution", "version", "api_version", "sha256")


class _Info(Collector):
    def __init__(self, plugins: Sequence[ActivePlugin], prefix: str) -> None:
        self._plugins = plugins
        self._name = f"{prefix}:plugin_info"

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, "A plugin in use.", labels=LABELS)
        for plugin in self._plugins:
            values = plugin.as_dict()
            known = [values[label] for label in LABELS]
            family.add_metric(["" if value is None else str(value) for value in known], 1)
        return [family]


def plugin_metrics(plugins: Sequence[ActivePlugin], prefix: str) -> bytes:
    """``PREFIX:plugin_info``, 1 for each plugin; made once, as it does not change."""
    if not plugins:
        return b""
    registry = CollectorRegistry()
    registry.register(_Info(plugins, prefix))
    return generate_latest(registry)


def version_body(version: str, plugins: Sequence[ActivePlugin]) -> dict[str, object]:
    """The answer of ``GET /version``."""
    return {"version": version, "plugins": [plugin.as_dict() for plugin in plugins]}
