"""A span a request, over a tracer that writes down what it is asked for."""

from __future__ import annotations

import builtins
import time
from dataclasses import replace
from typing import Any

import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import in_process

from jackfield.contracts.generation import RequestRecord
from jackfield.errors import ConfigError
from jackfield.hooks import Hooks
from jackfield.server import app as application
from jackfield.server.door import Frontend
from jackfield.server.options import ServerOptions
from jackfield.server.tracing import Tracing, make_tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder:
    """What ``Tracing`` uses of OpenTelemetry's tracer and spans."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    def start_span(self, name: str, **values: Any) -> Recorder:
        self.spans.append({"name": name, **values})
        return self

    def end(self, end_time: int) -> None:
        self.spans[-1]["end_time"] = end_time


def record(arrival: float) -> RequestRecord:
    return RequestRecord(
        "r", arrival, arrival + 0.5, arrival + 1, arrival + 3, 10, 5, 0, "stop", 1, 16
    )


def test_a_span_has_the_requests_times_and_counts() -> None:
    recorder = Recorder()
    tracing = Tracing(recorder, dict, "m", "server")
    arrival = time.monotonic() - 10
    tracing.request_finished(record(arrival))
    tracing.request_finished(replace(record(arrival), first_scheduled=None, first_token=None,
                                     last_token=None, finish="abort"))  # fmt: skip
    span, aborted = recorder.spans
    assert (span["name"], span["kind"], span["context"]) == ("llm_request", "server", None)
    assert (span["end_time"] - span["start_time"]) / 1e9 == pytest.approx(3.0)
    assert time.time() - span["start_time"] / 1e9 == pytest.approx(10.0, abs=1.0)
    attributes = span["attributes"]
    assert attributes["gen_ai.usage.prompt_tokens"] == 10
    assert attributes["gen_ai.usage.completion_tokens"] == 5
    assert attributes["gen_ai.latency.e2e"] == pytest.approx(3.0)
    assert attributes["gen_ai.latency.time_in_queue"] == pytest.approx(0.5)
    assert attributes["gen_ai.latency.time_to_first_token"] == pytest.approx(1.0)
    assert aborted["attributes"]["gen_ai.response.finish_reason"] == "abort"
    assert "gen_ai.latency.time_to_first_token" not in aborted["attributes"]


class RecordingLLM(FakeLLM):
    """Tells its observers, as the real door does."""

    async def collect(self, request: Any) -> Any:
        try:
            return await super().collect(request)
        finally:
            for observer in self.observers:
                observer.request_finished(record(time.monotonic()))


async def test_a_clients_trace_is_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(
        application,
        "make_tracing",
        lambda endpoint, model: Tracing(recorder, dict, model, endpoint),
    )
    async with in_process(RecordingLLM(), otlp_traces_endpoint="http://collector") as http:
        await http.post("/v1/completions", json={"prompt": "a"}, headers={"traceparent": PARENT})
        await http.post("/v1/completions", json={"prompt": "a"})
    assert [span["context"] for span in recorder.spans] == [{"traceparent": PARENT}, None]
    assert recorder.spans[0]["kind"] == "http://collector"


def test_without_the_packages_the_start_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_import = builtins.__import__

    def no_sdk(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry.sdk"):
            raise ImportError(f"No module named {name!r}", name=name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_sdk)
    with pytest.raises(ConfigError, match=r"pip install 'jackfield\[otlp\]'"):
        make_tracing("http://localhost:4317", "m")
    options = ServerOptions(otlp_traces_endpoint="http://localhost:4317")
    with pytest.raises(ConfigError, match="--otlp-traces-endpoint"):
        application.build_app(Frontend(FakeLLM(), options), Hooks())
