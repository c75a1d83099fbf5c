"""One OpenTelemetry span a request, for ``--otlp-traces-endpoint``."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from jackfield.contracts.generation import RequestRecord
from jackfield.errors import ConfigError
from jackfield.server.asgi import ASGIApp, Receive, Scope, Send

_CARRIER: ContextVar[dict[str, str] | None] = ContextVar("trace headers", default=None)
_HEADERS = (b"traceparent", b"tracestate")


class TraceHeaders:
    """The middleware that remembers which trace a request belongs to."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] == "http":
            found = {
                name.decode(): value.decode("latin-1")
                for name, value in scope["headers"]
                if name in _HEADERS
            }
            _CARRIER.set(found or None)
        await self._app(scope, receive, send)


class Tracing:
    """An observer that makes a span of each finished request.

    ``tracer`` is OpenTelemetry's; ``extract`` turns W3C headers into a parent context.
    """

    def __init__(
        self, tracer: Any, extract: Callable[[dict[str, str]], Any], model: str, kind: Any
    ) -> None:
        self._tracer = tracer
        self._extract = extract
        self._model = model
        self._kind = kind

    def request_finished(self, record: RequestRecord) -> None:
        """One span from arrival to the last token, or to now."""
        now = time.monotonic()
        end = record.last_token if record.last_token is not None else now
        # Spans have wall-clock times; the engine's are monotonic.
        offset = time.time() - now
        carrier = _CARRIER.get()
        span = self._tracer.start_span(
            "llm_request",
            context=None if carrier is None else self._extract(carrier),
            kind=self._kind,
            start_time=_nanoseconds(record.arrival + offset),
            attributes=self._attributes(record, end),
        )
        span.end(end_time=_nanoseconds(end + offset))

    def inter_token(self, seconds: float, count: int) -> None:
        """A span a token would be too much."""

    def _attributes(self, record: RequestRecord, end: float) -> dict[str, Any]:
        """The names that vLLM uses."""
        attributes: dict[str, Any] = {
            "gen_ai.response.model": self._model,
            "gen_ai.request.id": record.request_id,
            "gen_ai.request.n": record.n,
            "gen_ai.request.max_tokens": record.max_tokens,
            "gen_ai.usage.num_sequences": record.n,
            "gen_ai.usage.prompt_tokens": record.num_prompt_tokens,
            "gen_ai.usage.completion_tokens": record.num_output_tokens,
            "gen_ai.response.finish_reason": record.finish,
            "gen_ai.latency.e2e": end - record.arrival,
        }
        if record.first_scheduled is not None:
            attributes["gen_ai.latency.time_in_queue"] = record.first_scheduled - record.arrival
        if record.first_token is not None:
            attributes["gen_ai.latency.time_to_first_token"] = record.first_token - record.arrival
        return attributes


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def make_tracing(endpoint: str, model: str) -> Tracing:
    """Sends spans to an OTLP collector, in batches and from a thread of its own: by HTTP to an
    endpoint that ends in ``/v1/traces``, to others by gRPC. ``ConfigError`` without the optional
    packages."""
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        exporter = _exporter(endpoint)
    except ImportError as error:
        raise ConfigError(
            f"--otlp-traces-endpoint needs OpenTelemetry ({error.name} is not installed): "
            "pip install 'jackfield[otlp]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "jackfield"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    extract = TraceContextTextMapPropagator().extract
    return Tracing(provider.get_tracer("jackfield"), extract, model, SpanKind.SERVER)


def _exporter(endpoint: str) -> Any:
    if endpoint.rstrip("/").endswith("/v1/traces"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
        OTLPSpanExporter as GrpcSpanExporter,
    )

    return GrpcSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
