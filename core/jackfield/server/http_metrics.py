"""Requests and their time by route, method and status: the part of ``/metrics`` about HTTP."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Collection, Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from jackfield.server.asgi import ASGIApp, Message, Receive, Scope, Send, route_path
from jackfield.server.histogram import Histogram

_DURATIONS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNKNOWN = "none"
"""The route of a path that leads nowhere: clients must not be able to make up time series."""

LEFT = 499
"""As proxies write for a client that left before the answer."""


class HttpMetrics:
    """Counts the responses of one server. The names are those of Prometheus' usual
    instrumentation of FastAPI, which boards for vLLM read."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._durations: defaultdict[tuple[str, str], Histogram] = defaultdict(_durations)

    def note(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request was answered."""
        method = method if method in _METHODS else UNKNOWN
        self._requests[route, method, f"{status // 100}xx"] += 1
        self._durations[route, method].observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Both families."""
        requests = CounterMetricFamily(
            "http_requests", "Requests answered.", labels=["handler", "method", "status"]
        )
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        yield requests
        durations = HistogramMetricFamily(
            "http_request_duration_seconds",
            "Head of the request to the end of the answer.",
            labels=["handler", "method"],
        )
        for (route, method), histogram in self._durations.items():
            one = histogram.export({"handler": route, "method": method})
            durations.samples.extend(one.samples)
        yield durations


def _durations() -> Histogram:
    return Histogram("http_request_duration_seconds", "", _DURATIONS)


class MeasureRequests:
    """The middleware that notes each response. ``hot`` paths are routes of their own; the
    framework says what other paths lead to. Costs a plain call a message."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, hot: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and times it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = LEFT

        def send_noted(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            seconds = time.monotonic() - began
            self._metrics.note(self._route(scope), scope["method"], status, seconds)

    def _route(self, scope: Scope) -> str:
        path = route_path(scope)
        if path in self._hot:
            return path
        found: str = getattr(scope.get("route"), "path", UNKNOWN)
        return found
