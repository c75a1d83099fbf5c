"""``/tokenize``, ``/detokenize`` and the small routes."""

from __future__ import annotations

from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import in_process

import jackfield


async def test_text_goes_to_ids_and_back() -> None:
    async with in_process(FakeLLM()) as http:
        body = {"prompt": "héllo", "return_token_strs": True}
        tokens = (await http.post("/tokenize", json=body)).json()
        text = (await http.post("/detokenize", json={"tokens": tokens["tokens"]})).json()
    assert tokens["tokens"] == list("héllo".encode())
    assert (tokens["count"], tokens["max_model_len"]) == (6, 1000)
    assert tokens["token_strs"][0] == "h"
    assert text == {"prompt": "héllo"}


async def test_chats_are_rendered_first() -> None:
    async with in_process(FakeLLM()) as http:
        body = {"messages": [{"role": "user", "content": "hi"}]}
        tokens = (await http.post("/tokenize", json=body)).json()["tokens"]
    assert bytes(tokens) == b"user: hi"


async def test_what_is_longer_than_the_context_is_counted() -> None:
    said = [{"role": "user", "content": "a" * 50}]
    async with in_process(FakeLLM(max_model_len=16)) as http:
        for path, body, field in (
            ("/tokenize", {"messages": said}, "count"),
            ("/v1/messages/count_tokens", {"model": "fake", "messages": said}, "input_tokens"),
            ("/v1/responses/input_tokens", {"input": said}, "input_tokens"),
        ):
            assert (await http.post(path, json=body)).json()[field] == len("user: ") + 50
        turns = [*said, {"role": "user", "content": "b"}]
        body = {"input": turns, "truncation": "auto"}
        kept = (await http.post("/v1/responses/input_tokens", json=body)).json()["input_tokens"]
    assert kept == len("user: b")


async def test_bad_bodies_name_the_field() -> None:
    cases = [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/tokenize", {"prompt": "a", "promt": "a"}, "promt"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [257]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
    ]
    async with in_process(FakeLLM()) as http:
        for path, body, param in cases:
            answer = await http.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_health_follows_the_engine() -> None:
    llm = FakeLLM()
    ready, llm.ready = llm.ready, None
    async with in_process(llm) as http:
        assert (await http.get("/health")).status_code == 503
        refused = await http.post("/v1/completions", json={"prompt": "a"})
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert (await http.post("/tokenize", json={"prompt": "a"})).status_code == 503
        llm.ready = ready
        assert (await http.get("/health")).status_code == 200
        assert (await http.post("/ping")).status_code == 200
        version = (await http.get("/version")).json()
        assert version == {"version": jackfield.__version__, "plugins": []}


async def test_without_a_tokenizer_ids_are_served_and_text_is_refused() -> None:
    llm = FakeLLM()
    llm.tokenizer = None
    async with in_process(llm) as http:
        ids = {"prompt": [1, 2], "logprobs": 1}
        answer = await http.post("/v1/completions", json=ids)
        assert answer.json()["choices"][0]["logprobs"]["tokens"][0] == "token_id:97"
        assert (await http.post("/v1/completions", json={"prompt": "a"})).status_code == 400
        chat = {"messages": [{"role": "user", "content": "hi"}]}
        assert (await http.post("/v1/chat/completions", json=chat)).status_code == 400
