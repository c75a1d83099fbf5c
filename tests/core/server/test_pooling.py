"""The pooling routes: OpenAI's client reads a real engine's vectors; what is wrong is named."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types import CreateEmbeddingResponse
from tests.core.server.fake_llm import CLASSIFY, CROSS, EMBED, FakeLLM, FakePlan
from tests.core.server.http_server import in_process
from tests.core.server.sdk_models import check
from tests.sentence_models import classifier, embedding

from jackfield.config.plan import PoolerPlan
from jackfield.config.settings import make_settings
from jackfield.hooks import Hooks
from jackfield.llm import AsyncLLM
from jackfield.planning import make_plan
from jackfield.planning.pooling import PoolingPlan
from jackfield.registry import Registry
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.options import ServerOptions

SCORE_PATHS = ("/score", "/v1/score")
_PER_DOC = "max_tokens_per_doc"
RERANK_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")


def fake(plan: PoolingPlan = EMBED) -> FakeLLM:
    """Its vectors are (first id, last id, number of ids, 1)."""
    return FakeLLM(plan=FakePlan(pooling=plan))


@asynccontextmanager
async def served(directory: Path, **options: object) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application over a real engine."""
    settings = make_settings(
        {"model": str(directory), "device": "cpu", "max_model_len": 64, **options}
    )
    registry = Registry()
    llm = AsyncLLM(make_plan(settings, registry), registry)
    await llm.start()
    options_ = ServerOptions(enable_prompt_tokens_details=True)
    transport = httpx.ASGITransport(app=build_app(Frontend(llm, options_), Hooks()))
    try:
        async with httpx.AsyncClient(base_url="http://server", transport=transport) as http:
            yield http
    finally:
        await llm.stop()


async def test_openais_client_gets_the_same_vectors_in_every_form() -> None:
    async with served(embedding(), hf_overrides={"is_matryoshka": True}) as http:
        in_process_client: Any = http
        client = openai.AsyncOpenAI(
            base_url="http://server/v1",
            api_key="key",
            max_retries=0,
            http_client=in_process_client,
        )
        model = (await client.models.list()).data[0].id
        texts = ["hello", "another one"]
        # Without a format the client asks for base64 and decodes it.
        packed = await client.embeddings.create(model=model, input=texts)
        plain = await client.embeddings.create(model=model, input=texts, encoding_format="float")
        tokens = (await http.post("/tokenize", json={"prompt": "hello"})).json()["tokens"]
        by_ids = await client.embeddings.create(model=model, input=[tokens, tokens])
        cut = await client.embeddings.create(model=model, input="hello", dimensions=8, user="me")
        raw = await http.post("/v1/embeddings", json={"input": texts})
    vectors = [np.array(one.embedding) for one in packed.data]
    assert [one.index for one in packed.data] == [0, 1]
    for vector, one in zip(vectors, plain.data, strict=True):
        assert abs(np.linalg.norm(vector) - 1) < 1e-6
        assert np.allclose(vector, one.embedding, atol=1e-6)
    assert np.allclose(by_ids.data[1].embedding, vectors[0], atol=1e-5)
    short = vectors[0][:8] / np.linalg.norm(vectors[0][:8])
    assert np.allclose(cut.data[0].embedding, short, atol=1e-5)
    assert packed.model == model
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > len(tokens)
    extras = ("id", "created", "prompt_tokens_details")
    check(CreateEmbeddingResponse, raw.json(), known_extras=extras)


async def test_a_classifier_labels_and_counts() -> None:
    async with served(classifier()) as http:
        answer = (await http.post("/classify", json={"input": ["hello", [3, 4]]})).json()
        raw = await http.post("/pooling", json={"input": "hello", "activation": False})
        metrics = (await http.get("/metrics")).text
    first = answer["data"][0]
    assert first["label"] == f"label {int(np.argmax(first['probs']))}"
    assert first["num_classes"] == len(first["probs"]) == 3
    assert abs(sum(first["probs"]) - 1) < 1e-6
    scores = np.exp(raw.json()["data"][0]["data"])
    assert np.allclose(scores / scores.sum(), first["probs"], atol=1e-5)
    assert 'jackfield:request_success_total{engine="0",finished_reason="stop"' in metrics
    assert "jackfield:e2e_request_latency_seconds_count" in metrics


@pytest.mark.parametrize("path", SCORE_PATHS)
async def test_score_compares_one_text_with_each_or_two_by_two(path: str) -> None:
    async with in_process(fake(CROSS)) as http:
        one = await http.post(path, json={"text_1": "a", "text_2": ["b", "cc"]})
        two = await http.post(path, json={"data_1": ["a", "b"], "data_2": ["b", "cc"]})
        newer = [
            await http.post(path, json={"queries": ["a", "b"], name: ["b", "cc"]})
            for name in ("documents", "items")
        ]
        uneven = await http.post(path, json={"text_1": ["a", "b"], "text_2": "c"})
    assert [entry["score"] for entry in one.json()["data"]] == [97.0, 97.0]
    assert [entry["score"] for entry in two.json()["data"]] == [97.0, 98.0]
    assert all(other.json()["data"] == two.json()["data"] for other in newer)
    assert one.json()["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert uneven.status_code == 400 and uneven.json()["error"]["param"] == "text_1"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", {"text_1": "a", "text_2": "b"}),
        ("/rerank", {"query": "a", "documents": ["b"]}),
    ],
)
async def test_scores_of_pairs_are_activated_unless_the_request_says_otherwise(
    path: str, body: dict[str, Any]
) -> None:
    async with in_process(fake(replace(CROSS, activation="sigmoid"))) as http:
        said = [
            (await http.post(path, json={**body, **more})).json()
            for more in ({}, {"use_activation": True}, {"activation": False})
        ]
    entries = [answer["data" if path == "/score" else "results"][0] for answer in said]
    scores = [entry.get("score", entry.get("relevance_score")) for entry in entries]
    assert scores == [1.0, 1.0, 97.0]


@pytest.mark.parametrize("path", RERANK_PATHS)
async def test_rerank_gives_the_best_first(path: str) -> None:
    body = {"query": "az", "documents": ["z", {"text": "az"}, "azz"], "model": "alias"}
    async with in_process(fake()) as http:
        whole = (await http.post(path, json=body)).json()
        two = await http.post(path, json={**body, "top_n": 1, "return_documents": False})
    assert [entry["index"] for entry in whole["results"]] == [1, 2, 0]
    assert whole["results"][0]["document"] == {"text": "az"}
    assert abs(whole["results"][0]["relevance_score"] - 1) < 1e-6
    assert whole["model"] == "alias"
    assert [set(entry) for entry in two.json()["results"]] == [{"index", "relevance_score"}]


async def test_a_conversation_is_embedded_through_the_chat_template() -> None:
    llm = fake()
    async with in_process(llm) as http:
        said = [{"role": "user", "content": "hello"}]
        answer = await http.post("/v1/embeddings", json={"messages": said})
    assert answer.status_code == 200
    assert llm.pooled[0].prompt_text == "user: hello"
    assert llm.prompts.last_chat["add_generation_prompt"] is False


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {}, "input"),
        ("/v1/embeddings", {"input": None}, "input"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": ["a", 3]}, "input[1]"),
        ("/v1/embeddings", {"input": [[3], []]}, "input[1]"),
        ("/v1/embeddings", {"input": [999]}, "input"),
        ("/v1/embeddings", {"input": ["a"] * 2049}, "input"),
        ("/v1/embeddings", {"input": "a", "messages": [{"role": "user"}]}, "input"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions"),
        ("/v1/embeddings", {"input": "a", "dimensions": 5}, "dimensions"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ("/v1/embeddings", {"input": "a", "embed_dtype": "float16"}, "embed_dtype"),
        ("/v1/embeddings", {"input": "a", "endianness": "big"}, "endianness"),
        ("/v1/embeddings", {"input": "a", "truncation_side": "left"}, "truncation_side"),
        ("/rerank", {"query": "a", "documents": ["b"], "max_tokens_per_doc": 9}, _PER_DOC),
        ("/v1/embeddings", {"input": "a", "model": "other"}, "model"),
        ("/v1/embeddings", {"input": "a", "temperature": 1}, "temperature"),
        ("/v1/embeddings", {"input": "a" * 1001}, "input"),
        ("/pooling", {"input": "a", "task": "classify"}, "task"),
        ("/pooling", {"input": "a", "use_activation": True}, "use_activation"),
        ("/pooling", {"input": "a", "activation": True}, "activation"),
        ("/score", {"text_1": "a"}, "text_2"),
        ("/score", {"text_1": "a", "text_2": []}, "text_2"),
        ("/score", {"text_1": "a", "text_2": ""}, "text_2"),
        ("/rerank", {"query": "a", "documents": []}, "documents"),
        ("/rerank", {"query": "a", "documents": [{"title": "b"}]}, "documents[0]"),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n"),
    ],
)
async def test_the_field_at_fault_is_named(path: str, body: Mapping[str, Any], param: str) -> None:
    async with in_process(fake()) as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == (404 if param == "model" else 400), answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("plan", "served_paths"),
    [
        (None, {"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"}),
        (EMBED, {"/v1/embeddings", "/pooling", *SCORE_PATHS, *RERANK_PATHS}),
        (CLASSIFY, {"/classify", "/pooling"}),
        (CROSS, {"/classify", "/pooling", *SCORE_PATHS, *RERANK_PATHS}),
    ],
)
async def test_each_kind_of_model_has_its_own_paths(
    plan: PoolingPlan | None, served_paths: set[str]
) -> None:
    every = {
        *("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"),
        *("/v1/embeddings", "/pooling", "/classify", *SCORE_PATHS, *RERANK_PATHS),
    }
    async with in_process(FakeLLM(plan=FakePlan(pooling=plan))) as http:
        document = (await http.get("/openapi.json")).json()["paths"]
        assert every & document.keys() == served_paths
        for path in every:
            answer = await http.post(path, json={})
            assert answer.status_code == (400 if path in served_paths else 404)
            if path not in served_paths:
                assert "the model" in answer.text


@pytest.mark.parametrize(
    ("plan", "path", "body"),
    [
        (None, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        (None, "/v1/completions", {"prompt": "a"}),
        (EMBED, "/v1/embeddings", {"input": "a"}),
        (EMBED, "/score", {"queries": "a", "documents": ["b"]}),
        (CROSS, "/rerank", {"query": "a", "documents": ["b"]}),
        (CLASSIFY, "/classify", {"input": "a"}),
    ],
)
async def test_sagemakers_one_path_is_that_of_the_body(
    plan: PoolingPlan | None, path: str, body: dict[str, Any]
) -> None:
    async with in_process(FakeLLM(plan=FakePlan(pooling=plan))) as http:
        there = (await http.post(path, json=body)).json()
        answer = await http.post("/invocations", json=body)
        wrong = await http.post("/invocations", json={"body": "a"})
    assert answer.status_code == 200, answer.text
    fresh = {"id", "created"}
    assert {n: v for n, v in answer.json().items() if n not in fresh} == {
        n: v for n, v in there.items() if n not in fresh
    }
    assert wrong.status_code == 400 and path in wrong.json()["error"]["message"]


async def test_vectors_in_base64_are_little_endian_float32() -> None:
    async with in_process(fake()) as http:
        body = {"input": "az", "encoding_format": "base64", "normalize": False}
        answer = (await http.post("/v1/embeddings", json=body)).json()
    packed = base64.b64decode(answer["data"][0]["embedding"])
    assert np.frombuffer(packed, "<f4").tolist() == [97.0, 122.0, 2.0, 1.0]


async def test_no_request_is_taken_before_the_engine_is_there() -> None:
    llm = fake()
    llm.ready = None
    async with in_process(llm) as http:
        assert (await http.post("/v1/embeddings", json={"input": "a"})).status_code == 503


BY_TOKEN = replace(EMBED, pooler=PoolerPlan(kind="all"), token_bytes=16)


async def test_a_vector_for_each_token_is_a_list_of_lists() -> None:
    async with in_process(fake(BY_TOKEN)) as http:
        asked = {"input": ["hi", "there"], "task": "token_embed", "normalize": False}
        answer = await http.post("/pooling", json=asked)
        shapes = [np.shape(entry["data"]) for entry in answer.json()["data"]]
        assert shapes == [(2, 4), (5, 4)]
        packed = await http.post("/pooling", json={**asked, "encoding_format": "base64"})
        first = base64.b64decode(packed.json()["data"][0]["data"])
        found = np.frombuffer(first, "<f4").reshape(2, 4)
        assert found.tolist() == answer.json()["data"][0]["data"]
        assert (await http.post("/pooling", json={"input": "hi", "task": "encode"})).is_success
        for body, path in (
            ({"input": "hi", "task": "embed"}, "/pooling"),
            ({"input": "hi"}, "/v1/embeddings"),
            ({"text_1": "a", "text_2": "b"}, "/score"),
        ):
            refused = await http.post(path, json=body)
            assert refused.status_code in (400, 404)
            assert "served for token_embed" in refused.json()["error"]["message"]
