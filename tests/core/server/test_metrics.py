"""What ``/metrics`` says, read by Prometheus' own parser."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference
from prometheus_client.parser import text_string_to_metric_families
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import in_process

import jackfield
from jackfield.contracts.generation import RequestRecord
from jackfield.llm.parser_counts import ParserCounts
from jackfield.server.histogram import Histogram

# The names that dashboards and autoscalers read.
NAMES = {
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "cache_config_info",
    "prompt_tokens", "generation_tokens", "num_preemptions", "prefix_cache_queries",
    "prefix_cache_hits", "request_success", "prompt_tokens_cached",
    "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
    "request_time_per_output_token_seconds", "request_queue_time_seconds",
    "request_prefill_time_seconds", "request_decode_time_seconds",
    "request_inference_time_seconds", "request_prompt_tokens", "request_generation_tokens",
    "request_params_n", "request_params_max_tokens", "engine_restarts", "engine_sleep_state",
    "gpu_cache_usage_perc", "gpu_prefix_cache_hits", "gpu_prefix_cache_queries",
    "time_per_output_token_seconds", "iteration_tokens_total",
    "request_max_num_generation_tokens", "request_prefill_kv_computed_tokens",
    "prompt_tokens_by_source",
}  # fmt: skip


def record(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request_id": "a",
        "arrival": 10.0,
        "first_scheduled": 10.5,
        "first_token": 11.0,
        "last_token": 13.0,
        "num_prompt_tokens": 100,
        "num_output_tokens": 5,
        "num_cached_tokens": 64,
        "finish": "stop",
        "n": 1,
        "max_tokens": 16,
        "max_choice_tokens": 4,
    }
    return RequestRecord(**values | changes)


async def scrape(llm: FakeLLM, prefix: str = "jackfield") -> dict[str, float]:
    samples: dict[str, float] = {}
    async with in_process(llm, metrics_prefix=prefix) as http:
        for observer in llm.observers:
            observer.request_finished(record())
            observer.request_finished(
                record(finish="abort", first_scheduled=None, first_token=None, last_token=None)
            )
            observer.inter_token(0.5, 4)
        text = (await http.get("/metrics")).text
    for family in text_string_to_metric_families(text):
        if family.name.startswith(("http_", "process_")) or family.name.endswith("build_info"):
            continue
        for sample in family.samples:
            extra = {k: v for k, v in sample.labels.items() if k not in ("model_name", "engine")}
            assert sample.labels["model_name"] == "fake"
            key = sample.name + "".join(f"|{v}" for v in extra.values())
            samples[key] = sample.value
        assert family.name.startswith(f"{prefix}:")
        samples[family.name] = samples.get(family.name, 0.0)
    return samples


async def test_the_names_are_vllms_with_our_prefix() -> None:
    samples = await scrape(FakeLLM())
    assert {f"jackfield:{name}" for name in NAMES} <= samples.keys()


async def test_requests_and_engine_counts_are_told() -> None:
    samples = await scrape(FakeLLM())
    assert samples["jackfield:num_requests_running"] == 1
    assert samples["jackfield:num_requests_waiting"] == 2
    assert samples["jackfield:kv_cache_usage_perc"] == 50 / 99
    assert samples["jackfield:prompt_tokens_total"] == 20
    assert samples["jackfield:request_success_total|stop"] == 1
    assert samples["jackfield:request_success_total|abort"] == 1
    assert samples["jackfield:time_to_first_token_seconds_sum"] == 1.0
    assert samples["jackfield:time_to_first_token_seconds_count"] == 1
    assert samples["jackfield:e2e_request_latency_seconds_sum"] == 3.0
    assert samples["jackfield:request_time_per_output_token_seconds_sum"] == 0.5
    assert samples["jackfield:request_queue_time_seconds_sum"] == 0.5
    assert samples["jackfield:request_prefill_kv_computed_tokens_sum"] == 72
    assert samples["jackfield:prompt_tokens_by_source_total|local_compute"] == 72
    assert samples["jackfield:prompt_tokens_by_source_total|local_cache_hit"] == 128
    assert samples["jackfield:request_max_num_generation_tokens_sum"] == 8
    assert samples["jackfield:inter_token_latency_seconds_count"] == 4
    assert samples["jackfield:inter_token_latency_seconds_sum"] == 2.0


async def test_what_the_engine_spends_is_told_in_parts() -> None:
    llm = FakeLLM()
    assert llm.stats is not None
    llm.stats = msgspec.structs.replace(
        llm.stats,
        stage_seconds={"launch": 1.5, "wait": 0.25},
        steps_over={"decode": 7},
        step_seconds={"decode": 0.5},
        steps_by_size=(5, 2, *[0] * 12),
        num_step_tokens=11,
    )
    samples = await scrape(llm)
    assert samples["jackfield:engine_stage_seconds_total|launch"] == 1.5
    assert samples["jackfield:engine_stage_seconds_total|wait"] == 0.25
    assert samples["jackfield:engine_steps_total|decode"] == 7
    assert samples["jackfield:engine_step_seconds_total|decode"] == 0.5
    sizes = "jackfield:iteration_tokens_total"
    assert samples[f"{sizes}_bucket|1.0"] == 5 and samples[f"{sizes}_bucket|8.0"] == 7
    assert samples[f"{sizes}_count"] == 7 and samples[f"{sizes}_sum"] == 11


async def test_boards_for_vllm_find_their_names() -> None:
    samples = await scrape(FakeLLM(), "vllm")
    assert {f"vllm:{name}" for name in NAMES} <= samples.keys()
    older = samples["vllm:time_per_output_token_seconds_sum"]
    assert older == samples["vllm:inter_token_latency_seconds_sum"] == 2.0


async def test_an_engine_that_was_lost_has_no_requests() -> None:
    llm = FakeLLM()
    llm.stats, llm.num_restarts = None, 3
    samples = await scrape(llm)
    assert samples["jackfield:num_requests_running"] == 0
    assert samples["jackfield:engine_restarts_total"] == 3


async def test_responses_are_counted_by_route_method_and_status() -> None:
    async with in_process(FakeLLM()) as http:
        for _ in range(3):
            await http.post("/v1/completions", json={"prompt": "a"})
        await http.post("/v1/completions", json={"prompt": 7})
        await http.get("/v1/models/fake")
        await http.get("/made/up/path")
        await http.request("INVENTED", "/health")
        text = (await http.get("/metrics")).text
    counts = {
        tuple(sample.labels[name] for name in ("handler", "method", "status")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "http_requests_total"
    }
    assert counts == {
        ("/v1/completions", "POST", "2xx"): 3,
        ("/v1/completions", "POST", "4xx"): 1,
        ("/v1/models/{model:path}", "GET", "2xx"): 1,
        ("none", "GET", "4xx"): 1,
        ("/health", "none", "4xx"): 1,
    }
    assert 'http_request_duration_seconds_count{handler="/v1/completions",method="POST"} 4' in text


async def test_a_server_that_still_loads_can_be_scraped() -> None:
    llm = FakeLLM()
    llm.ready = llm.stats = None
    assert "jackfield:request_success" in await scrape(llm)


def test_histograms_count_as_prometheus_clients_own() -> None:
    bounds = (0.1, 0.5, 1.0, 7.5)
    ours = Histogram("a", "a", bounds)
    registry = CollectorRegistry()
    theirs = Reference("a", "a", buckets=bounds, registry=registry)
    values = [*bounds, 0.0, 100.0, *(random.Random(1).uniform(0, 10) for _ in range(200))]
    for value in values:
        ours.observe(value)
        theirs.observe(value)
    ours_samples = {(s.name, s.labels.get("le")): s.value for s in ours.export({}).samples}
    for sample in next(iter(registry.collect())).samples:
        if not sample.name.endswith("_created"):
            assert ours_samples[sample.name, sample.labels.get("le")] == sample.value


async def test_what_parsers_saw_and_what_the_server_is_made_of_is_told() -> None:
    llm = FakeLLM()
    counts = ParserCounts("tool_parsers", "hermes")
    counts.outcomes.update(["complete", "complete", "malformed"])
    llm.parser_counts = [counts, ParserCounts("reasoning_parsers", "qwen3")]
    async with in_process(llm) as http:
        text = (await http.get("/metrics")).text
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    calls = {
        sample.labels["outcome"]: sample.value
        for sample in samples
        if sample.name == "jackfield:tool_calls_total" and sample.labels["tool_parser"] == "hermes"
    }
    assert calls == {"complete": 2, "cut": 0, "unknown_tool": 0, "malformed": 1, "failed": 0}
    thoughts = [s for s in samples if s.name == "jackfield:reasoning_outputs_total"]
    assert {s.labels["reasoning_parser"] for s in thoughts} == {"qwen3"}
    (build,) = [s for s in samples if s.name == "jackfield:build_info"]
    assert build.labels["version"] == jackfield.__version__ and build.value == 1
