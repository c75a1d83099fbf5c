"""What a server is made of, its version and its plugins: for ``/version`` and as info metrics."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from jackfield.registry.active import ActivePlugin

LABELS = ("kind", "name", "distribution", "version", "api_version", "sha256")


class _Info(Collector):
    def __init__(self, version: str, plugins: Sequence[ActivePlugin], prefix: str) -> None:
        self._version = version
        self._plugins = plugins
        self._prefix = prefix

    def collect(self) -> list[GaugeMetricFamily]:
        build = GaugeMetricFamily(
            f"{self._prefix}:build_info", "The server.", labels=["version", "python_version"]
        )
        build.add_metric([self._version, platform.python_version()], 1)
        family = GaugeMetricFamily(f"{self._prefix}:plugin_info", "A plugin in use.", labels=LABELS)
        for plugin in self._plugins:
            values = plugin.as_dict()
            known = [values[label] for label in LABELS]
            family.add_metric(["" if value is None else str(value) for value in known], 1)
        return [build, family] if self._plugins else [build]


def plugin_metrics(version: str, plugins: Sequence[ActivePlugin], prefix: str) -> bytes:
    """``PREFIX:build_info``, and ``PREFIX:plugin_info``, 1 for each plugin; made once, as they do
    not change."""
    registry = CollectorRegistry()
    registry.register(_Info(version, plugins, prefix))
    return generate_latest(registry)


def version_body(version: str, plugins: Sequence[ActivePlugin]) -> dict[str, object]:
    """The answer of ``GET /version``."""
    return {"version": version, "plugins": [plugin.as_dict() for plugin in plugins]}
