"""``/metrics``: vLLM's metric names with a prefix of their own, ``jackfield:`` or another one.

Observing costs a few list increments; everything else is made when somebody scrapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from jackfield.contracts.generation import RequestRecord
from jackfield.contracts.messages import STEP_TOKEN_BOUNDS, EngineReady, EngineStats
from jackfield.server.door import Door
from jackfield.server.histogram import Histogram, add_counts
from jackfield.server.http_metrics import HttpMetrics

_LATENCY = (
    0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0,
    60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_BETWEEN_TOKENS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_CHOICES = (1, 2, 5, 10, 20)


def _token_bounds(max_model_len: int) -> list[float]:
    """1, 2, 5, 10, 20, 50, ... up to the context length."""
    bounds: list[float] = []
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power > max_model_len:
                return bounds
            bounds.append(step * power)
        power *= 10


class Metrics(Collector):
    """Observes an ``AsyncLLM`` and exports what it saw together with the engine's own counts."""

    def __init__(self, llm: Door, prefix: str, http: HttpMetrics) -> None:
        self._llm = llm
        self._prefix = f"{prefix}:"
        self._http = http
        self._labels = {"model_name": llm.plan.served_model_names[0], "engine": "0"}
        self._histograms: list[Histogram] = []
        tokens = _token_bounds(llm.max_model_len)
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Time to the first token.", _FIRST_TOKEN
        )
        self._between = self._histogram(
            "inter_token_latency_seconds", "Time between two tokens.", _BETWEEN_TOKENS
        )
        self._per_output = self._histogram(
            "request_time_per_output_token_seconds", "Mean time a token.", _BETWEEN_TOKENS
        )
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "Arrival to last token.", _LATENCY
        )
        self._queue = self._histogram("request_queue_time_seconds", "Time waiting.", _LATENCY)
        self._prefill = self._histogram(
            "request_prefill_time_seconds", "Scheduled to first token.", _LATENCY
        )
        self._decode = self._histogram(
            "request_decode_time_seconds", "First to last token.", _LATENCY
        )
        self._inference = self._histogram(
            "request_inference_time_seconds", "Scheduled to last token.", _LATENCY
        )
        self._prompt = self._histogram("request_prompt_tokens", "Prompt tokens.", tokens)
        self._generation = self._histogram("request_generation_tokens", "Tokens generated.", tokens)
        self._longest = self._histogram(
            "request_max_num_generation_tokens", "Tokens of the longest choice.", tokens
        )
        self._computed = self._histogram(
            "request_prefill_kv_computed_tokens", "Prompt tokens not found in a cache.", tokens
        )
        self._n = self._histogram("request_params_n", "The request's n.", _CHOICES)
        self._max_tokens = self._histogram(
            "request_params_max_tokens", "The request's max_tokens.", tokens
        )
        self._finished: Counter[str] = Counter({"stop": 0, "length": 0, "abort": 0, "error": 0})
        self._num_cached = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def _histogram(self, name: str, text: str, bounds: Sequence[float]) -> Histogram:
        histogram = Histogram(self._prefix + name, text, bounds)
        self._histograms.append(histogram)
        return histogram

    def request_finished(self, record: RequestRecord) -> None:
        """One request is over; times it did not reach are not observed."""
        self._finished[record.finish] += 1
        self._num_cached += record.num_cached_tokens
        self._n.observe(record.n)
        self._max_tokens.observe(record.max_tokens)
        self._prompt.observe(record.num_prompt_tokens)
        self._generation.observe(record.num_output_tokens)
        self._longest.observe(record.max_choice_tokens)
        self._computed.observe(record.num_prompt_tokens - record.num_cached_tokens)
        if record.first_scheduled is not None:
            self._queue.observe(max(0.0, record.first_scheduled - record.arrival))
        if record.first_token is None or record.last_token is None:
            return
        self._first_token.observe(record.first_token - record.arrival)
        self._whole.observe(record.last_token - record.arrival)
        decode = record.last_token - record.first_token
        self._decode.observe(decode)
        if record.num_output_tokens > record.n:
            self._per_output.observe(decode * record.n / (record.num_output_tokens - record.n))
        if record.first_scheduled is not None:
            self._prefill.observe(record.first_token - record.first_scheduled)
            self._inference.observe(record.last_token - record.first_scheduled)

    def inter_token(self, seconds: float, count: int) -> None:
        """``count`` tokens came ``seconds`` after the ones before."""
        self._between.observe(seconds, count)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        ready, stats = self._llm.ready, self._llm.stats
        if ready is not None:
            yield self._cache_info(ready)
            yield from self._engine_metrics(stats or _NOTHING, ready.num_blocks)
        yield self._counter("engine_restarts", "Engines replaced.", self._llm.num_restarts)
        yield self._sleep_state()
        yield from self._http.collect()
        finished = CounterMetricFamily(
            f"{self._prefix}request_success",
            "Requests finished.",
            labels=[*self._labels, "finished_reason"],
        )
        for reason, count in self._finished.items():
            finished.add_metric([*self._labels.values(), reason], count)
        yield finished
        yield self._counter("prompt_tokens_cached", "Prompt tokens from a cache.", self._num_cached)
        sources = {"local_compute": self._computed.total, "local_cache_hit": self._num_cached}
        yield self._parts(
            "prompt_tokens_by_source", "Prompt tokens by where they are from.", "source", sources
        )
        for histogram in self._histograms:
            yield histogram.export(self._labels)
        older_name = f"{self._prefix}time_per_output_token_seconds"
        yield self._between.export(self._labels, older_name)

    def _cache_info(self, ready: EngineReady) -> Metric:
        fields = {"block_size": str(ready.block_size), "num_gpu_blocks": str(ready.num_blocks)}
        labels = self._labels | fields
        family = GaugeMetricFamily(
            f"{self._prefix}cache_config_info", "The KV cache.", labels=list(labels)
        )
        family.add_metric(list(labels.values()), 1)
        return family

    def _sleep_state(self) -> Metric:
        labels = {**self._labels, "sleep_state": "awake"}
        family = GaugeMetricFamily(
            f"{self._prefix}engine_sleep_state", "1 unless the engine sleeps.", labels=list(labels)
        )
        family.add_metric(list(labels.values()), not self._llm.is_asleep)
        return family

    def _engine_metrics(self, stats: EngineStats, num_blocks: int) -> Iterator[Metric]:
        yield self._gauge("num_requests_running", "Requests in the batch.", stats.num_running)
        yield self._gauge("num_requests_waiting", "Requests waiting.", stats.num_waiting)
        usage = stats.num_blocks_used / max(num_blocks - 1, 1)
        yield self._gauge("kv_cache_usage_perc", "KV blocks in use, 1 is all.", usage)
        yield self._gauge("gpu_cache_usage_perc", "The same by its older name.", usage)
        for name, text in _ENGINE_COUNTERS.items():
            source = _COUNTER_FIELDS.get(name, name)
            yield self._counter(name, text, getattr(stats, source))
        for name, (field, label, text) in _ENGINE_PARTS.items():
            yield self._parts(name, text, label, getattr(stats, field))
        sizes = HistogramMetricFamily(
            self._prefix + _STEP_SIZES, "Tokens that a step computes.", labels=list(self._labels)
        )
        counts, total = stats.steps_by_size, stats.num_step_tokens
        add_counts(sizes, self._labels, STEP_TOKEN_BOUNDS, counts, total)
        yield sizes

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(self._prefix + name, text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _parts(self, name: str, text: str, label: str, parts: Mapping[str, float]) -> Metric:
        labels = [*self._labels, label]
        family = CounterMetricFamily(self._prefix + name, text, labels=labels)
        for part, value in parts.items():
            family.add_metric([*self._labels.values(), part], value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(self._prefix + name, text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family


_NOTHING = EngineStats(0, 0, 0, 0, 0, 0, 0, 0, 0)
"""An engine that has not told anything yet has done nothing."""

_ENGINE_COUNTERS = {
    "num_preemptions": "Requests taken from the batch for want of blocks.",
    "prefix_cache_queries": "Prompt tokens looked up in the prefix cache.",
    "prefix_cache_hits": "Prompt tokens found in the prefix cache.",
    "gpu_prefix_cache_queries": "prefix_cache_queries by its older name.",
    "gpu_prefix_cache_hits": "prefix_cache_hits by its older name.",
    "prompt_tokens": "Prompt tokens processed.",
    "generation_tokens": "Tokens generated.",
}
_ENGINE_PARTS = {
    "engine_stage_seconds": ("stage_seconds", "stage", "What the engine's loop has spent."),
    "engine_steps": ("steps_over", "kind", "Steps that are over."),
    "engine_step_seconds": ("step_seconds", "kind", "What they took, one behind the other."),
}
"""Counters in parts, by name: the field of ``EngineStats``, the label of a part, a line of help."""

_STEP_SIZES = "iteration_tokens_total"

_COUNTER_FIELDS = {
    "gpu_prefix_cache_queries": "prefix_cache_queries",
    "gpu_prefix_cache_hits": "prefix_cache_hits",
    "prompt_tokens": "num_prompt_tokens",
    "generation_tokens": "num_generation_tokens",
}


def engine_families(prefix: str) -> frozenset[str]:
    """Counters and histograms that are the engine's: every process that shares it has the same."""
    names = (*_ENGINE_COUNTERS, *_ENGINE_PARTS, _STEP_SIZES, "engine_restarts")
    return frozenset(f"{prefix}:{name}" for name in names)
