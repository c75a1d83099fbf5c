"""The real OpenAI client against the real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.core.server.fake_llm import FakeLLM, FakePlan
from tests.core.server.http_server import in_process, serving
from tests.core.server.scripts import CALLS, TALK, events
from tests.core.server.sdk_models import check, sse_events

HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


@asynccontextmanager
async def sdk(llm: FakeLLM, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        serving(llm, **options) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0) as client,
    ):
        yield client


OURS = ("prompt_token_ids", "reasoning", "reasoning_content", "stop_reason", "token_ids")
"""What our answers have beside OpenAI's fields."""
PARSERS = FakePlan(tool_parser="hermes", reasoning_parser="qwen3")


async def test_chat_answers_with_text_and_usage() -> None:
    async with sdk(FakeLLM()) as client:
        answer = await client.chat.completions.create(
            model="fake", messages=HELLO, max_completion_tokens=5, user="me", store=False
        )
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content == "abcde"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 5)


async def test_chat_stream_says_what_the_answer_says() -> None:
    async with sdk(FakeLLM()) as client:
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="fake",
                messages=HELLO,
                max_tokens=4,
                n=2,
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
    texts = {0: "", 1: ""}
    for chunk in chunks[:-1]:
        assert chunk.usage is None
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: "abcd", 1: "bcde"}
    assert [c.choices[0].delta.role for c in chunks[:1]] == ["assistant"]
    finishes = [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason]
    assert finishes == ["length", "length"]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_and_reasoning_arrive_whole(stream: bool) -> None:
    async with sdk(FakeLLM(events(*CALLS), plan=PARSERS)) as client:
        if stream:
            async with client.chat.completions.stream(
                model="fake", messages=HELLO, tools=[TOOL]
            ) as events_stream:
                answer: Any = await events_stream.get_final_completion()
        else:
            answer = await client.chat.completions.create(
                model="fake", messages=HELLO, tools=[TOOL]
            )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.reasoning_content == choice.message.reasoning == "let me see"
    assert choice.message.content == "\n\n"
    calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    assert calls == [("weather", '{"city": "Paris"}'), ("time", "{}")]
    ids = [call.id for call in choice.message.tool_calls]
    assert ids[0].startswith("call_") and ids[1] == "functions.time:1"


@pytest.mark.parametrize("script", [CALLS, TALK])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"logprobs": True, "top_logprobs": 1},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"return_token_ids": True},
    ],
)
async def test_chat_answers_and_chunks_are_openais(script: Any, fields: dict[str, Any]) -> None:
    body = {"messages": HELLO, "tools": [TOOL], **fields}
    path = "/v1/chat/completions"
    async with in_process(FakeLLM(events(*script), plan=PARSERS)) as client:
        stream = await client.post(path, json={**body, "stream": True})
        body.pop("stream_options", None)
        whole = await client.post(path, json=body)
    check(ChatCompletion, whole.json(), known_extras=OURS)
    *chunks, done = sse_events(stream.text)
    assert done[1] == "[DONE]"
    for _, data in chunks:
        check(ChatCompletionChunk, data, known_extras=OURS)
        if "stream_options" in fields:
            assert data["usage"]["prompt_tokens"] == 11


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"logprobs": 1},
        {"stream_options": {"include_usage": True}, "n": 2},
        {"return_token_ids": True, "prompt": [1, 2, 3]},
    ],
)
async def test_completions_and_chunks_are_openais(fields: dict[str, Any]) -> None:
    body = {"prompt": "hi", "max_tokens": 2, **fields}
    async with in_process(FakeLLM()) as client:
        stream = await client.post("/v1/completions", json={**body, "stream": True})
        body.pop("stream_options", None)
        whole = await client.post("/v1/completions", json=body)
    check(Completion, whole.json(), known_extras=OURS)
    *chunks, done = sse_events(stream.text)
    assert done[1] == "[DONE]"
    for _, data in chunks:
        # Without a finish reason a chunk is no Completion in OpenAI's own words either.
        finish = [choice.get("finish_reason") or "stop" for choice in data["choices"]]
        closed = [{**c, "finish_reason": f} for c, f in zip(data["choices"], finish, strict=True)]
        check(Completion, {**data, "choices": closed}, known_extras=OURS)


async def test_the_request_decides_what_of_the_events_is_shown() -> None:
    async with sdk(FakeLLM(events(*CALLS), plan=PARSERS)) as client:
        answer: Any = await client.chat.completions.create(
            model="fake",
            messages=HELLO,
            tools=[TOOL],
            parallel_tool_calls=False,
            extra_body={"include_reasoning": False},
        )
    message = answer.choices[0].message
    assert message.reasoning_content is None
    assert [call.function.name for call in message.tool_calls] == ["weather"]


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_logprobs_have_exact_bytes(stream: bool) -> None:
    async with sdk(FakeLLM()) as client:
        arguments: Any = {"logprobs": True, "top_logprobs": 2, "max_tokens": 2}
        if stream:
            content: Any = []
            async for chunk in await client.chat.completions.create(
                model="fake", messages=HELLO, stream=True, **arguments
            ):
                logprobs = chunk.choices[0].logprobs
                content += (logprobs.content or []) if logprobs else []
        else:
            answer = await client.chat.completions.create(model="fake", messages=HELLO, **arguments)
            assert answer.choices[0].logprobs is not None
            content = answer.choices[0].logprobs.content
    assert [(entry.token, entry.bytes, entry.logprob) for entry in content] == [
        ("a", [97], -0.5),
        ("b", [98], -0.5),
    ]
    assert [top.token for top in content[0].top_logprobs] == ["a", "x"]


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_of_a_batch_with_echo_and_logprobs(stream: bool) -> None:
    async with sdk(FakeLLM()) as client:
        arguments: Any = {
            "model": "fake",
            "prompt": ["hi", "yo"],
            "n": 2,
            "max_tokens": 2,
            "echo": True,
            "logprobs": 1,
        }
        texts = [""] * 4
        tokens: list[list[str]] = [[], [], [], []]
        offsets: list[list[int]] = [[], [], [], []]
        if stream:
            choices: Any = [
                chunk.choices[0]
                async for chunk in await client.completions.create(stream=True, **arguments)
            ]
        else:
            choices = (await client.completions.create(**arguments)).choices
    for choice in choices:
        texts[choice.index] += choice.text
        tokens[choice.index] += choice.logprobs.tokens
        offsets[choice.index] += choice.logprobs.text_offset
    assert texts == ["hiab", "hibc", "yoab", "yobc"]
    assert tokens == [list(text) for text in texts]
    assert offsets == [[0, 1, 2, 3]] * 4


async def test_completions_take_ids_and_stop_strings() -> None:
    llm = FakeLLM()
    async with sdk(llm) as client:
        answer = await client.completions.create(
            model="alias",
            prompt=[104, 105],
            stop=["x", "y"],
            seed=3,
            logit_bias={"5": -100},
            temperature=0,
            extra_body={"top_k": 5, "min_p": 0.1, "ignore_eos": True, "priority": 2},
        )
    assert answer.model == "alias"
    assert answer.choices[0].text == "abcdefghijklmnop"  # 16 tokens is OpenAI's default
    request = llm.requests[0]
    assert request.prompt_token_ids == (104, 105)
    assert request.priority == 2
    sampling = request.sampling
    assert sampling.stop_strings == ("x", "y")
    assert sampling.logit_bias == {5: -100.0}
    assert (sampling.seed, sampling.top_k, sampling.min_p, sampling.ignore_eos) == (3, 5, 0.1, True)


async def test_errors_are_the_sdks_own_classes() -> None:
    llm = FakeLLM()
    async with sdk(llm, api_keys=("key",), max_waiting_requests=5) as client:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="other", messages=HELLO)
        assert missing.value.param == "model" and missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(
                model="fake", messages=HELLO, extra_body={"temprature": 1}
            )
        assert bad.value.param == "temprature" and "'temperature'" in bad.value.message
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").models.list()
        llm.num_waiting = 5
        with pytest.raises(openai.RateLimitError) as full:
            await client.completions.create(model="fake", prompt="x")
        assert full.value.response.headers["retry-after"] == "1"


async def test_models_are_listed_and_found() -> None:
    async with sdk(FakeLLM()) as client:
        models = [model.id async for model in client.models.list()]
        assert models == ["fake", "alias"]
        assert (await client.models.retrieve("alias")).id == "alias"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other")


async def test_cached_tokens_are_told_when_asked_for() -> None:
    async with sdk(FakeLLM(), enable_prompt_tokens_details=True) as client:
        answer = await client.completions.create(model="fake", prompt="hello")
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
