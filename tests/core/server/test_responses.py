"""``/v1/responses`` against OpenAI's SDK: its client, and its models of every event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, get_args, get_type_hints

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from tests.core.server.fake_llm import ByteTokenizer, FakeLLM, FakePlan
from tests.core.server.http_server import in_process, serving
from tests.core.server.scripts import CALLS, TALK, breaks_off, events
from tests.core.server.sdk_models import check, sse_events

from jackfield.contracts.generation import Finish
from jackfield.contracts.response_store import StoreLimits
from jackfield.contracts.text import Content
from jackfield.server.responses.request import (
    REFUSED,
    InputTokensRequest,
    ResponsesRequest,
)
from jackfield.server.responses.tools import OTHER_TOOLS
from jackfield_response_stores.memory import MemoryResponseStore

PATH = "/v1/responses"
PARSERS = FakePlan(tool_parser="hermes", reasoning_parser="qwen3")
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "the weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


# OpenAI's answers have ``store``; SDKs before 3 want the function's name where arguments end.
check_response = partial(check, Response, known_extras=("store",))
check_event = partial(check, ResponseStreamEvent, known_extras=("store", "name"))


def store() -> MemoryResponseStore:
    return MemoryResponseStore(StoreLimits(max_responses=100, max_bytes=1 << 20))


@asynccontextmanager
async def http(llm: FakeLLM, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(llm, response_store=store(), **options) as client:
        yield client


@asynccontextmanager
async def sdk(llm: FakeLLM) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        serving(llm, response_store=store()) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0) as client,
    ):
        yield client


def test_every_field_of_openais_request_is_known() -> None:
    from openai.types.responses import response_create_params as params

    names = set(params.ResponseCreateParamsStreaming.__annotations__)
    names |= set(params.ResponseCreateParamsBase.__annotations__)
    assert names <= ResponsesRequest.model_fields.keys() | REFUSED.keys()


async def test_the_sdk_reads_text_and_usage() -> None:
    async with sdk(FakeLLM()) as client:
        answer = await client.responses.create(
            model="fake", input="hello", max_output_tokens=5, metadata={"a": "b"}
        )
    assert answer.output_text == "abcde"
    assert answer.status == "incomplete" and answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.error is None and answer.metadata == {"a": "b"}
    assert answer.usage is not None and answer.usage.output_tokens == 5
    assert answer.id.startswith("resp_") and (answer.output[0].id or "").startswith("msg_")


@pytest.mark.parametrize("script", [CALLS, TALK])
async def test_every_event_is_openais_and_says_what_the_answer_says(script: Any) -> None:
    body: dict[str, Any] = {"input": "hi", "tools": [TOOL], "instructions": "be brief"}
    async with http(FakeLLM(events(*script), plan=PARSERS)) as client:
        whole = check_response((await client.post(PATH, json=body)).json())
        stream = sse_events((await client.post(PATH, json={**body, "stream": True})).text)
    for number, (name, data) in enumerate(stream):
        assert name == data["type"] and data["sequence_number"] == number
        check_event(data)
    assert [data["type"] for _, data in stream[:2]] == ["response.created", "response.in_progress"]
    assert stream[-1][1]["type"] == "response.completed"
    final = check_response(stream[-1][1]["response"])
    assert [without_ids(item) for item in final.output] == [
        without_ids(item) for item in whole.output
    ]
    assert final.usage == whole.usage and whole.usage is not None
    assert replayed([data for _, data in stream]) == stream[-1][1]["response"]["output"]


def without_ids(item: Any) -> dict[str, Any]:
    return {k: v for k, v in item.model_dump().items() if k not in ("id", "call_id")}


def replayed(stream: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output items as a client puts them together; asserts the order of their events."""
    items: list[dict[str, Any]] = []
    text = ""
    for event in stream:
        kind, index = event["type"], event.get("output_index")
        if kind == "response.output_item.added":
            assert index == len(items) and event["item"]["status"] == "in_progress"
            items.append(event["item"])
            text = ""
        elif kind.endswith(".delta"):
            assert index == len(items) - 1 and event["item_id"] == items[-1]["id"]
            text += event["delta"]
        elif kind == "response.content_part.done":
            items[-1]["content"].append(event["part"])
        elif kind.endswith("_text.done"):
            assert event["text"] == text
        elif kind == "response.function_call_arguments.done":
            assert event["arguments"] == text
            items[-1]["arguments"] = text
        elif kind == "response.output_item.done":
            items[-1]["status"] = event["item"]["status"]
            assert event["item"] == items[-1]
    return items


async def test_calls_and_thinking_are_items_and_whitespace_is_none() -> None:
    async with sdk(FakeLLM(events(*CALLS), plan=PARSERS)) as client:
        answer = await client.responses.create(model="fake", input="hi", tools=[TOOL])
        async with client.responses.stream(model="fake", input="hi", tools=[TOOL]) as stream:
            streamed = await stream.get_final_response()
    for one in (answer, streamed):
        assert [item.type for item in one.output] == ["reasoning", "function_call", "function_call"]
        thinking, first, second = (item.model_dump() for item in one.output)
        assert thinking["content"] == [{"type": "reasoning_text", "text": "let me see"}]
        assert (first["name"], first["arguments"]) == ("weather", '{"city": "Paris"}')
        assert first["call_id"].startswith("call_") and second["call_id"] == "functions.time:1"
        assert second["name"] == "time"
        assert one.usage is not None and one.usage.output_tokens_details.reasoning_tokens == 2
        assert one.usage.input_tokens_details.cached_tokens == 4


async def test_parallel_calls_can_be_refused() -> None:
    async with http(FakeLLM(events(*CALLS), plan=PARSERS)) as client:
        body = {"input": "hi", "tools": [TOOL], "parallel_tool_calls": False}
        answer = (await client.post(PATH, json=body)).json()
    assert [item["type"] for item in answer["output"]] == ["reasoning", "function_call"]


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_are_those_of_the_text(stream: bool) -> None:
    body = {
        "input": "hi",
        "max_output_tokens": 2,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 1,
        "stream": stream,
    }
    async with http(FakeLLM()) as client:
        answer = await client.post(PATH, json=body)
    response = sse_events(answer.text)[-1][1]["response"] if stream else answer.json()
    logprobs = response["output"][0]["content"][0]["logprobs"]
    assert [(one["token"], one["bytes"], one["logprob"]) for one in logprobs] == [
        ("a", [97], -0.5),
        ("b", [98], -0.5),
    ]
    check_response(response)


async def test_a_failure_ends_the_stream_with_the_failed_response() -> None:
    async with http(FakeLLM(breaks_off)) as client:
        text = (await client.post(PATH, json={"input": "x", "stream": True})).text
        whole = await client.post(PATH, json={"input": "x"})
    last = check_event(sse_events(text)[-1][1])
    assert last.type == "response.failed" and last.response.status == "failed"
    assert last.response.error is not None and last.response.error.message == "it broke"
    assert whole.status_code == 422 and whole.json()["error"]["message"] == "it broke"


async def test_a_conversation_goes_on_from_its_last_response() -> None:
    llm = FakeLLM(events(*CALLS), plan=PARSERS)
    async with sdk(llm) as client:
        first = await client.responses.create(
            model="fake", input="weather?", tools=[TOOL], instructions="be kind"
        )
        llm.script = events((Content("sunny"),))
        call: Any = first.output[1]
        second = await client.responses.create(
            model="fake",
            previous_response_id=first.id,
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "20"}],
        )
        await client.responses.create(model="fake", previous_response_id=second.id, input="thanks")
    messages = llm.prompts.last_chat["messages"]
    assert [message["role"] for message in messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert messages[1]["reasoning"] == "let me see"
    assert [one["function"]["name"] for one in messages[1]["tool_calls"]] == ["weather", "time"]
    assert messages[2]["tool_call_id"] == call.call_id == messages[1]["tool_calls"][0]["id"]
    assert messages[3]["content"] == [{"type": "text", "text": "sunny"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_items_of_a_kept_response_may_be_referred_to(stream: bool) -> None:
    """So the AI SDK sends what the model has said."""
    llm = FakeLLM(events(*CALLS), plan=PARSERS)
    async with http(llm) as client:
        asked = {"input": "weather?", "tools": [TOOL], "stream": stream}
        answer = await client.post(PATH, json=asked)
        first = sse_events(answer.text)[-1][1]["response"] if stream else answer.json()
        said = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
        result = {"type": "function_call_output", "output": "20"}
        result["call_id"] = first["output"][1]["call_id"]
        again = {"input": [{"role": "user", "content": "weather?"}, *said, result], "tools": [TOOL]}
        second = await client.post(PATH, json=again)
        referred = llm.prompts.last_chat["messages"]
        check_response(second.json())
        goes_on = {"input": [result], "tools": [TOOL], "previous_response_id": first["id"]}
        await client.post(PATH, json=goes_on)
    expected = llm.prompts.last_chat["messages"]
    assert [message["role"] for message in referred] == ["user", "assistant", "tool"]
    assert referred[1:] == expected[1:]


@pytest.mark.parametrize("item_id", ["x", "msg_" + "0" * 32 + "_0", "{}9"])
async def test_an_item_that_is_not_kept_is_not_found(item_id: str) -> None:
    async with http(FakeLLM()) as client:
        made = (await client.post(PATH, json={"input": "x"})).json()
        own = made["output"][0]["id"]
        item = {"type": "item_reference", "id": item_id.format(own)}
        answer = await client.post(PATH, json={"input": [{"role": "user", "content": "x"}, item]})
    assert answer.status_code == 404 and answer.json()["error"]["param"] == "input[1].id"


async def test_an_item_is_referred_to_once() -> None:
    async with http(FakeLLM()) as client:
        made = (await client.post(PATH, json={"input": "x"})).json()
        item = {"type": "item_reference", "id": made["output"][0]["id"]}
        answer = await client.post(PATH, json={"input": [item, item]})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "input[1].id"


async def test_kept_responses_are_retrieved_listed_and_deleted() -> None:
    said: Any = [
        {"role": "user", "content": "one", "type": None, "id": None},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "input_text", "text": "three"}]},
    ]
    async with sdk(FakeLLM()) as client:
        made = await client.responses.create(model="fake", input=said)
        assert await client.responses.retrieve(made.id) == made
        listed: Any = (await client.responses.input_items.list(made.id, limit=2)).data
        raw = await client.get(f"/responses/{made.id}/input_items?order=asc", cast_to=object)
        check(ResponseItemList, raw)
        texts = [one.content[0].text for one in listed]
        assert texts == ["three", "two"]
        with pytest.raises(openai.BadRequestError):
            await client.responses.cancel(made.id)
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError) as raised:
            await client.responses.create(model="fake", input="x", previous_response_id=made.id)
        assert raised.value.code == "previous_response_not_found"


async def test_a_clients_request_id_is_no_key_of_the_store() -> None:
    llm = FakeLLM()
    async with http(llm) as client:
        body = {"input": "x", "request_id": "mine"}
        made = [(await client.post(PATH, json=body)).json()["id"] for _ in range(2)]
    assert len(set(made)) == 2 and "resp_mine" not in made
    assert [request.request_id for request in llm.requests] == ["resp_mine"] * 2


async def test_what_is_not_to_be_stored_is_not_kept() -> None:
    async with http(FakeLLM()) as client:
        made = (await client.post(PATH, json={"input": "x", "store": False})).json()
        assert made["store"] is False
        assert (await client.get(f"{PATH}/{made['id']}")).status_code == 404
    async with in_process(FakeLLM()) as client:
        made = (await client.post(PATH, json={"input": "x", "store": True})).json()
        assert made["store"] is False, "there is no store"


async def test_truncation_drops_the_oldest_turns_and_keeps_the_instructions() -> None:
    llm = FakeLLM(max_model_len=120)
    turns = [
        {"role": role, "content": f"{index:04d}" * 3}
        for index in range(12)
        for role in ("user", "assistant")
    ]
    body = {"instructions": "stay", "input": [*turns, {"role": "user", "content": "last"}]}
    async with http(llm) as client:
        refused = await client.post(PATH, json=body)
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "input"
        answer = await client.post(PATH, json={**body, "truncation": "auto"})
    assert answer.status_code == 200
    seen = [message["content"] for message in llm.prompts.last_chat["messages"]]
    prompt = llm.requests[-1].prompt_token_ids
    text = ByteTokenizer().decode(prompt)
    assert seen[0] == "stay" and seen[-1] == "last" and text.startswith("system: stay\nuser: ")
    dropped_turn = len("user: 000400040004\nassistant: 000400040004\n")
    assert len(prompt) < 120 <= len(prompt) + dropped_turn, "no more is dropped than needed"


async def test_the_request_reaches_the_model_as_a_chat() -> None:
    llm = FakeLLM(plan=PARSERS)
    body = {
        "model": "alias",
        "input": [
            {"role": "developer", "content": "d"},
            {
                "type": "reasoning",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "r"}],
            },
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "o"}],
            },
        ],
        "tools": [TOOL, {"type": "function", "name": "other", "parameters": None}],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "weather"}],
        },
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "temperature": 0.5,
        "top_k": 3,
        "stop": ["x"],
        "include": ["reasoning.encrypted_content"],
    }
    async with http(llm) as client:
        answer = check_response((await client.post(PATH, json=body)).json())
    assert answer.model == "alias" and answer.temperature == 0.5
    request = llm.requests[0]
    assert (request.sampling.top_k, request.sampling.stop_strings) == (3, ("x",))
    assert [tool["function"]["name"] for tool in request.tools] == ["weather"]  # type: ignore[index]
    chat = llm.prompts.last_chat
    assert chat["template_kwargs"]["reasoning_effort"] == "low"
    assert chat["messages"][1] == {
        "role": "assistant",
        "content": None,
        "reasoning": "r",
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
    assert chat["messages"][2]["tool_call_id"] == "c"


def test_every_type_of_openais_tools_is_known() -> None:
    from openai.types.responses.tool_param import ToolParam

    kinds = {
        kind for tool in get_args(ToolParam) for kind in get_args(get_type_hints(tool)["type"])
    }
    assert kinds == {"function", "namespace", *OTHER_TOOLS}


async def test_tools_and_reasoning_of_an_answer_may_be_sent_again() -> None:
    body: dict[str, Any] = {"input": "x", "tools": [TOOL], "reasoning": {"effort": "low"}}
    async with http(FakeLLM(plan=PARSERS)) as client:
        answer = check_response((await client.post(PATH, json=body)).json())
        answer = answer.model_dump(by_alias=True)
        again = {name: answer[name] for name in ("tools", "reasoning", "tool_choice", "text")}
        assert again["tools"][0].items() >= TOOL.items()
        second = await client.post(PATH, json={"input": "x", **again})
    assert second.status_code == 200, second.text


@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": None}])
async def test_tools_may_be_chosen_freely_from_none(tools: dict[str, Any]) -> None:
    async with http(FakeLLM()) as client:
        answer = await client.post(PATH, json={"input": "x", "tool_choice": "auto", **tools})
    assert check_response(answer.json()).tools == []


async def test_what_an_agent_offers_beside_its_functions_is_left_out() -> None:
    """As OpenAI's agents do, unless they are told to do without."""
    llm = FakeLLM(plan=PARSERS)
    body = {
        "input": "x",
        "tools": [TOOL, {"type": "web_search", "external_web_access": False}],
        "tool_choice": "auto",
        "client_metadata": {"x-codex-installation-id": "1"},
    }
    async with http(llm) as client:
        answer = check_response((await client.post(PATH, json=body)).json())
    assert [tool.type for tool in answer.tools] == ["function"]
    assert [tool["function"]["name"] for tool in llm.requests[0].tools] == ["weather"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": "x", "inptu": 1}, "inptu"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "conversation": "c"}, "conversation"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "x", "include": ["all"]}, "include[0]"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "temperature": -1}, "temperature"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata.a"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "tools": [TOOL, {"type": "fucntion"}]}, "tools[1].type"),
        ({"input": "x", "tools": [TOOL, {"type": ["mcp"]}]}, "tools[1].type"),
        ({"input": "x", "tool_choice": {"type": "mcp"}}, "tool_choice.type"),
        ({"input": "x", "text": {"verbosity": "high"}}, "text.verbosity"),
        ({"input": "x", "stream_options": {}}, "stream_options"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"type": "reasoning", "encrypted_content": "x"}]},
            "input[0].encrypted_content",
        ),
        ({"input": "x", "previous_response_id": 3}, "previous_response_id"),
    ],
)
async def test_bad_requests_are_400_and_name_the_field(body: dict[str, Any], param: str) -> None:
    async with http(FakeLLM()) as client:
        answer = await client.post(PATH, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param, answer.text


async def test_input_tokens_are_those_of_the_prompt_and_of_what_was_said_before() -> None:
    async with sdk(FakeLLM()) as client:
        first = await client.responses.create(model="fake", input="hello", instructions="be kind")
        alone = await client.responses.input_tokens.count(
            model="fake", input="hello", instructions="be kind"
        )
        assert first.usage is not None and alone.input_tokens == first.usage.input_tokens
        asked: Any = {"model": "fake", "input": "again", "previous_response_id": first.id}
        later = await client.responses.input_tokens.count(**asked)
        then = await client.responses.create(**asked)
    assert then.usage is not None and later.input_tokens == then.usage.input_tokens
    assert later.object == "response.input_tokens"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "hi", "max_output_tokens": 3}, "max_output_tokens"),
        ({"input": "hi", "personality": "warm"}, "personality"),
        ({"input": [{"type": "message", "role": "cat", "content": ""}]}, "input[0].role"),
        ({"input": "hi", "previous_response_id": "resp_none"}, "previous_response_id"),
    ],
)
async def test_counting_refuses_what_a_request_for_a_response_refuses(
    body: dict[str, Any], param: str
) -> None:
    async with http(FakeLLM()) as client:
        answer = await client.post(f"{PATH}/input_tokens", json=body)
    assert 400 <= answer.status_code < 500 and answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("given", "said"), [([], "at least 1 item"), (3, "valid string"), ([3], "valid dictionary")]
)
async def test_what_is_wrong_with_an_input_is_said(given: object, said: str) -> None:
    async with http(FakeLLM()) as client:
        error = (await client.post(PATH, json={"input": given})).json()["error"]
    assert said in error["message"] and error["param"].startswith("input")


def test_every_field_of_openais_count_is_known() -> None:
    from openai.types.responses.input_token_count_params import InputTokenCountParams

    names = set(InputTokenCountParams.__annotations__)
    assert names <= InputTokensRequest.model_fields.keys() | REFUSED.keys()


async def test_what_breaks_off_is_incomplete() -> None:
    script = events((Content("abc"),), finish=Finish("length"))
    async with http(FakeLLM(script, plan=PARSERS)) as client:
        answer = check_response((await client.post(PATH, json={"input": "x"})).json())
    assert answer.status == "incomplete" and answer.output[0].status == "incomplete"
