"""What became of calls and thinking, by parser: the part of ``/metrics`` about parsers."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from jackfield.server.door import Door

_FAMILIES = {
    "tool_parsers": ("tool_calls", "Tool calls, by what became of them.", "tool_parser"),
    "reasoning_parsers": (
        "reasoning_outputs",
        "Choices with thinking, by what became of it.",
        "reasoning_parser",
    ),
}
"""By kind: name, help, and the label that holds the plugin's name."""


class ParserMetrics(Collector):
    """Exports what the door's parsers count; nothing before they are loaded."""

    def __init__(self, llm: Door, prefix: str) -> None:
        self._llm = llm
        self._prefix = prefix
        self._model = llm.plan.served_model_names[0]
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        for counts in self._llm.parser_counts:
            name, text, label = _FAMILIES[counts.kind]
            family = CounterMetricFamily(
                f"{self._prefix}:{name}",
                text,
                labels=["model_name", "engine", label, "outcome"],
            )
            for outcome, count in counts.outcomes.items():
                family.add_metric([self._model, "0", counts.name, outcome], count)
            yield family
