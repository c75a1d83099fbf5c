"""Every format over a real engine process and a tiny model: they say the same, in valid shapes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
from anthropic.types import Message, RawMessageStreamEvent
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from tests.checkpoints import make
from tests.core.server.sdk_models import check, sse_events

from jackfield.config.settings import make_settings
from jackfield.hooks import Hooks
from jackfield.llm import AsyncLLM
from jackfield.planning import make_plan
from jackfield.registry import Registry
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.options import ServerOptions
from jackfield.server.responses.stored import open_store

CHAT_EXTRAS = ("stop_reason", "reasoning", "reasoning_content")
EVENT_EXTRAS = ("store", "name", "bytes")
SAID: list[dict[str, str]] = [{"role": "user", "content": "Hello"}]
GREEDY = {"temperature": 0.0, "ignore_eos": True}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["a"],
    "additionalProperties": False,
}


@asynccontextmanager
async def server() -> AsyncIterator[httpx.AsyncClient]:
    settings = make_settings(
        {"model": str(make("Qwen3ForCausalLM")), "device": "cpu", "max_model_len": 256}
    )
    registry = Registry()
    llm = AsyncLLM(make_plan(settings, registry), registry)
    await llm.start()
    options = ServerOptions(response_store="memory", enable_prompt_tokens_details=True)
    app = build_app(Frontend(llm, options, open_store(options, registry)), Hooks())
    transport = httpx.ASGITransport(app=app)
    try:
        async with httpx.AsyncClient(
            base_url="http://server", transport=transport, timeout=60
        ) as client:
            yield client
    finally:
        await llm.stop()


async def ask(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ask_streamed(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> list[tuple[str | None, Any]]:
    answer = await client.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    return sse_events(answer.text)


async def test_every_format_says_the_same_in_valid_shapes() -> None:
    async with server() as client:
        text = await chat_text(client)
        assert await responses_text(client) == text
        assert await messages_text(client) == text
        await completions_agree_with_their_logprobs(client)
        await a_response_goes_on(client)
        await structured_output_is_valid(client)


async def chat_text(client: httpx.AsyncClient) -> str:
    body = {"messages": SAID, "max_tokens": 12, "logprobs": True, "top_logprobs": 2, **GREEDY}
    path = "/v1/chat/completions"
    answer = check(ChatCompletion, await ask(client, path, body), known_extras=CHAT_EXTRAS)
    text: str = answer.choices[0].message.content
    # Each token has its own bytes, also where it is only part of a character.
    raw = b"".join(bytes(token.bytes) for token in answer.choices[0].logprobs.content)
    assert raw.decode("utf-8", "replace") == text
    streamed = ""
    for _, data in await ask_streamed(client, path, body):
        if data != "[DONE]":
            chunk = check(ChatCompletionChunk, data, known_extras=CHAT_EXTRAS)
            streamed += chunk.choices[0].delta.content or ""
    assert streamed == text
    return text


async def responses_text(client: httpx.AsyncClient) -> str:
    body = {"input": "Hello", "max_output_tokens": 12, "top_logprobs": 2, **GREEDY}
    path = "/v1/responses"
    answer = check(Response, await ask(client, path, body), known_extras=("store",))
    stream = await ask_streamed(client, path, body)
    for _, data in stream:
        check(ResponseStreamEvent, data, known_extras=EVENT_EXTRAS)
    assert Response.model_validate(stream[-1][1]["response"]).output_text == answer.output_text
    text: str = answer.output_text
    return text


async def messages_text(client: httpx.AsyncClient) -> str:
    body = {"messages": SAID, "max_tokens": 12, **GREEDY}
    path = "/v1/messages"
    answer = check(Message, await ask(client, path, body))
    streamed = ""
    for name, data in await ask_streamed(client, path, body):
        if name != "ping":
            event = check(RawMessageStreamEvent, data)
            streamed += event.delta.text if event.type == "content_block_delta" else ""
    assert streamed == answer.content[0].text
    counted = await ask(client, f"{path}/count_tokens", {"messages": SAID})
    usage = answer.usage
    assert counted["input_tokens"] == usage.input_tokens + usage.cache_read_input_tokens
    return streamed


async def completions_agree_with_their_logprobs(client: httpx.AsyncClient) -> None:
    body = {"prompt": "Hello", "max_tokens": 6, "n": 2, "best_of": 4, "logprobs": 1, "seed": 1}
    raw = await ask(client, "/v1/completions", {**body, "ignore_eos": True})
    answer = check(Completion, raw, known_extras=("stop_reason",))
    means = [sum(one.logprobs.token_logprobs) / 6 for one in answer.choices]
    assert means == sorted(means, reverse=True)
    assert answer.usage.completion_tokens == 24


async def a_response_goes_on(client: httpx.AsyncClient) -> None:
    first = await ask(client, "/v1/responses", {"input": "Hello", "max_output_tokens": 4, **GREEDY})
    then = {"input": "More", "previous_response_id": first["id"], "max_output_tokens": 4, **GREEDY}
    second = await ask(client, "/v1/responses", then)
    said = first["output"][0]["content"][0]["text"]
    chat = [*SAID, {"role": "assistant", "content": said}, {"role": "user", "content": "More"}]
    same = await ask(client, "/v1/chat/completions", {"messages": chat, "max_tokens": 4, **GREEDY})
    assert second["output"][0]["content"][0]["text"] == same["choices"][0]["message"]["content"]
    assert second["usage"]["input_tokens"] == same["usage"]["prompt_tokens"]
    again = await ask(client, "/v1/responses", {**then, "max_output_tokens": 8})
    assert 0 < again["usage"]["input_tokens_details"]["cached_tokens"]
    assert again["usage"]["input_tokens_details"]["cached_tokens"] < again["usage"]["input_tokens"]


async def structured_output_is_valid(client: httpx.AsyncClient) -> None:
    form = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}
    body: dict[str, Any] = {"input": "Hello", "seed": 3, "temperature": 1.0}
    answer = await ask(client, "/v1/responses", {**body, "text": {"format": form}})
    jsonschema.validate(json.loads(answer["output"][0]["content"][0]["text"]), SCHEMA)
    asked: dict[str, Any] = {"messages": SAID, "max_tokens": 200, "seed": 3, "temperature": 1.0}
    asked["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    message = await ask(client, "/v1/messages", asked)
    jsonschema.validate(json.loads(message["content"][0]["text"]), SCHEMA)
