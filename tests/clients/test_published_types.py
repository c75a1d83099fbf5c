"""Every answer and event is what the published API descriptions say: TypeScript's compiler checks
them against the types of the official clients, which are made of those descriptions. Unlike the
Python clients' types these say which fields must be there even where they may be null; a field that
they do not know is an error.

npm install --prefix tests/clients/node && pytest tests/clients/test_published_types.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.core.server.fake_llm import EMBED, FakeLLM, FakePlan
from tests.core.server.http_server import in_process
from tests.core.server.scripts import CALLS, TALK, breaks_off, events
from tests.core.server.sdk_models import sse_events

from jackfield.contracts.generation import Finish
from jackfield.contracts.response_store import StoreLimits
from jackfield_response_stores.memory import MemoryResponseStore

NODE = Path(__file__).parent / "node"
OPENAI = "openai/resources"
ANTHROPIC = "@anthropic-ai/sdk/resources/messages"
TYPES = {
    "ChatCompletion": f"{OPENAI}/chat/completions",
    "ChatCompletionChunk": f"{OPENAI}/chat/completions",
    "Completion": f"{OPENAI}/completions",
    "CreateEmbeddingResponse": f"{OPENAI}/embeddings",
    "ErrorObject": f"{OPENAI}/shared",
    "InputTokenCountResponse": f"{OPENAI}/responses/input-tokens",
    "Model": f"{OPENAI}/models",
    "Response": f"{OPENAI}/responses/responses",
    "ResponseItemList": f"{OPENAI}/responses/input-items",
    "ResponseStreamEvent": f"{OPENAI}/responses/responses",
    "Message": ANTHROPIC,
    "MessageTokensCount": ANTHROPIC,
    "RawMessageStreamEvent": ANTHROPIC,
}
OURS = frozenset({"prompt_token_ids", "reasoning", "reasoning_content", "stop_reason", "token_ids"})
"""What our chats and completions have beside OpenAI's fields."""

PARSERS = FakePlan(tool_parser="hermes", reasoning_parser="qwen3")
HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TOOL = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
MESSAGE_TOOL = {"name": "weather", "description": "the weather", "input_schema": SCHEMA}

Checked = tuple[str, Any]
"""The name of a type, and what should be of it."""


def without(value: Any, names: frozenset[str]) -> Any:
    """The value with no field of these names, at any depth."""
    if isinstance(value, list):
        return [without(each, names) for each in value]
    if isinstance(value, dict):
        return {key: without(each, names) for key, each in value.items() if key not in names}
    return value


def chat(value: Any) -> Any:
    return without(value, OURS)


def response(value: Any) -> Any:
    """With what the client adds by itself, and without what its types do not know: two fields that
    the Python client's have or OpenAI sends, and that others are null in OpenAI's own examples."""
    unknown = {"max_tool_calls", "store"}
    unknown |= {name for name in ("usage", "user") if value[name] is None}
    return {**without(value, frozenset(unknown)), "output_text": ""}


def response_event(value: Any) -> Any:
    return {**value, "response": response(value["response"])} if "response" in value else value


def message(value: Any) -> Any:
    """With the null citations of a text, which other clients than Anthropic's would refuse."""
    if isinstance(value, list):
        return [message(each) for each in value]
    if not isinstance(value, dict):
        return value
    citations = {"citations": None} if value.get("type") == "text" else {}
    return {**citations, **{key: message(each) for key, each in value.items()}}


async def chats(http: httpx.AsyncClient) -> list[Checked]:
    path, found = "/v1/chat/completions", []
    for fields in ({}, {"logprobs": True, "top_logprobs": 1}, {"return_token_ids": True}):
        body = {"messages": HELLO, "tools": [CHAT_TOOL], **fields}
        found.append(("ChatCompletion", chat((await http.post(path, json=body)).json())))
        usage = {"include_usage": True}
        stream = await http.post(path, json={**body, "stream": True, "stream_options": usage})
        found += [("ChatCompletionChunk", chat(data)) for _, data in sse_events(stream.text)[:-1]]
    return found


async def completions(http: httpx.AsyncClient) -> list[Checked]:
    path, found = "/v1/completions", []
    for fields in ({}, {"logprobs": 1}, {"n": 2, "echo": True}):
        body = {"prompt": "hi", "max_tokens": 2, **fields}
        found.append(("Completion", chat((await http.post(path, json=body)).json())))
        stream = await http.post(path, json={**body, "stream": True})
        for _, data in sse_events(stream.text)[:-1]:
            # Without a finish reason a chunk is no Completion in OpenAI's own words either.
            for choice in data["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
            found.append(("Completion", chat(data)))
    return found


async def responses(http: httpx.AsyncClient) -> list[Checked]:
    path = "/v1/responses"
    body = {"input": "hi", "tools": [TOOL], "instructions": "be brief"}
    whole = (await http.post(path, json=body)).json()
    more = {"top_logprobs": 1, "reasoning": {"effort": "low"}, "previous_response_id": whole["id"]}
    later = (await http.post(path, json={**body, **more, "metadata": {"a": "b"}})).json()
    found = [("Response", response(each)) for each in (whole, later)]
    kept = await http.get(f"{path}/{whole['id']}")
    found.append(("Response", response(kept.json())))
    items = await http.get(f"{path}/{later['id']}/input_items")
    found.append(("ResponseItemList", items.json()))
    count = await http.post(f"{path}/input_tokens", json={"input": "hi"})
    found.append(("InputTokenCountResponse", count.json()))
    stream = await http.post(path, json={**body, "stream": True})
    return found + [
        ("ResponseStreamEvent", response_event(data)) for _, data in sse_events(stream.text)
    ]


async def messages(http: httpx.AsyncClient) -> list[Checked]:
    path = "/v1/messages"
    body = {"messages": HELLO, "max_tokens": 100, "tools": [MESSAGE_TOOL]}
    found: list[Checked] = [("Message", message((await http.post(path, json=body)).json()))]
    stream = await http.post(path, json={**body, "stream": True})
    found += [
        ("RawMessageStreamEvent", message(data))
        for name, data in sse_events(stream.text)
        if name != "ping"
    ]
    count = await http.post(f"{path}/count_tokens", json={"messages": HELLO})
    return [*found, ("MessageTokensCount", count.json())]


async def others(http: httpx.AsyncClient) -> list[Checked]:
    models = (await http.get("/v1/models")).json()
    one = (await http.get("/v1/models/alias")).json()
    ours = frozenset({"max_model_len", "parent", "root"})
    found = [("Model", without(each, ours)) for each in [*models["data"], one]]
    refused = await http.post("/v1/completions", json={"prompt": 7})
    return [*found, ("ErrorObject", refused.json()["error"])]


async def embeddings() -> list[Checked]:
    async with in_process(FakeLLM(plan=FakePlan(pooling=EMBED))) as http:
        answer = await http.post("/v1/embeddings", json={"input": ["hi", "there"]})
    return [("CreateEmbeddingResponse", without(answer.json(), frozenset({"id", "created"})))]


async def everything() -> list[Checked]:
    found = await embeddings()
    for script in (
        events(*CALLS),
        events(*TALK),
        events(*TALK, finish=Finish("length")),
        breaks_off,
    ):
        store = MemoryResponseStore(StoreLimits(max_responses=100, max_bytes=1 << 20))
        llm = FakeLLM(script, plan=PARSERS)
        async with in_process(llm, response_store=store) as http:
            if script is breaks_off:
                stream = await http.post("/v1/responses", json={"input": "hi", "stream": True})
                found += [
                    ("ResponseStreamEvent", response_event(data))
                    for _, data in sse_events(stream.text)
                ]
                continue
            for part in (chats, responses, messages, others):
                found += await part(http)
    async with in_process(FakeLLM()) as http:
        found += await completions(http)
    return found


def source(checked: list[Checked]) -> Iterator[str]:
    """A program that is right if everything is of its type: a line for each."""
    for name, module in TYPES.items():
        yield f'import type {{ {name} }} from "{module}";'
    for number, (name, value) in enumerate(checked):
        yield f"export const v{number}: {name} = {json.dumps(value)};"


async def test_every_answer_and_event_is_of_its_published_type(tmp_path: Path) -> None:
    node, compiler = shutil.which("node"), NODE / "node_modules" / "typescript" / "bin" / "tsc"
    if node is None or not compiler.is_file():
        pytest.skip(f"TypeScript is not installed: npm install --prefix {NODE}")
    checked = await everything()
    assert {name for name, _ in checked} == TYPES.keys()
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    lines = list(source(checked))
    (tmp_path / "answers.ts").write_text("\n".join(lines))
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022"]
    flags += ["--module", "nodenext", "--moduleResolution", "nodenext"]
    done = subprocess.run(
        [node, str(compiler), *flags, "answers.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, "\n".join(explained(done.stdout, lines))


def explained(complaints: str, lines: list[str]) -> Iterator[str]:
    """What the compiler says, with the lines that it means."""
    for complaint in complaints.splitlines():
        yield complaint
        _, opening, rest = complaint.partition("(")
        number = rest.partition(",")[0]
        if opening and number.isdigit():
            yield f"    {lines[int(number) - 1][:2000]}"
