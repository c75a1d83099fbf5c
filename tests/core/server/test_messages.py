"""``/v1/messages`` against Anthropic's SDK: its client, and its models of every event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from tests.core.server.fake_llm import FakeLLM, FakePlan
from tests.core.server.http_server import in_process, serving
from tests.core.server.scripts import CALLS, TALK, breaks_off, events
from tests.core.server.sdk_models import check, sse_events

from jackfield.contracts.generation import ChoiceDelta, Finish, GenerationRequest
from jackfield.contracts.text import Content
from jackfield.errors import OverloadedError
from jackfield.server.messages.request import REFUSED, CountTokensRequest, MessagesRequest

PATH = "/v1/messages"
PARSERS = FakePlan(tool_parser="hermes", reasoning_parser="qwen3")
HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {
    "name": "weather",
    "description": "the weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CLEARING: Any = {"type": "clear_thinking_20251015"}


@asynccontextmanager
async def sdk(llm: FakeLLM, **options: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with (
        serving(llm, **options) as url,
        anthropic.AsyncAnthropic(base_url=url, api_key="key", max_retries=0) as client,
    ):
        yield client


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "fake", "max_tokens": 100, "messages": HELLO, **fields}


def test_every_field_of_anthropics_requests_is_known() -> None:
    from anthropic.types import message_count_tokens_params, message_create_params
    from anthropic.types.beta import message_create_params as beta_params

    created = set(message_create_params.MessageCreateParamsBase.__annotations__) | {"stream"}
    assert created <= MessagesRequest.model_fields.keys() | REFUSED.keys()
    counted = set(message_count_tokens_params.MessageCountTokensParams.__annotations__)
    assert counted <= CountTokensRequest.model_fields.keys() | REFUSED.keys()
    beta = set(beta_params.MessageCreateParamsBase.__annotations__) - {"betas"}  # a header
    assert beta <= MessagesRequest.model_fields.keys() | REFUSED.keys()


async def test_the_sdk_reads_text_usage_and_why_it_ended() -> None:
    async with sdk(FakeLLM(), enable_prompt_tokens_details=True) as client:
        answer = await client.messages.create(**body(max_tokens=5))
    # To other clients than Anthropic's a null is no list of citations.
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "abcde"}]
    assert answer.stop_reason == "max_tokens" and answer.id.startswith("msg_")
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (9, 2, 5)


@pytest.mark.parametrize("script", [CALLS, TALK])
async def test_every_event_is_anthropics_and_says_what_the_answer_says(script: Any) -> None:
    asked = body(tools=[TOOL], system="be brief")
    async with in_process(FakeLLM(events(*script), plan=PARSERS)) as client:
        whole = (await client.post(PATH, json=asked)).json()
        stream = sse_events((await client.post(PATH, json={**asked, "stream": True})).text)
    check(Message, whole)
    for name, data in stream:
        assert name == data["type"]
        if name != "ping":
            check(RawMessageStreamEvent, data)
    names = [name for name, _ in stream]
    assert names[:2] == ["message_start", "ping"]
    assert names[-2:] == ["message_delta", "message_stop"]
    assert stream[-2][1]["delta"]["stop_reason"] == whole["stop_reason"]
    assert stream[-2][1]["usage"].items() <= whole["usage"].items()
    assert stream[-2][1]["usage"]["output_tokens"] == whole["usage"]["output_tokens"] > 0
    assert names.count("content_block_stop") == len(whole["content"])


async def test_the_sdk_puts_thinking_and_calls_together() -> None:
    async with sdk(FakeLLM(events(*CALLS), plan=PARSERS)) as client:
        answer = await client.messages.create(**body(tools=[TOOL]))
        async with client.messages.stream(**body(tools=[TOOL])) as stream:
            streamed = await stream.get_final_message()
    for message in (answer, streamed):
        assert message.stop_reason == "tool_use"
        blocks: Any = message.content
        thinking, first, second = blocks
        assert thinking.type == "thinking" and thinking.thinking == "let me see"
        assert thinking.signature
        assert first.type == "tool_use" and second.type == "tool_use"
        assert (first.name, first.input) == ("weather", {"city": "Paris"})
        assert (second.name, second.input) == ("time", {})
        assert first.id.startswith("toolu_") and second.id == "functions.time:1"


async def test_thinking_and_parallel_calls_can_be_switched_off() -> None:
    llm = FakeLLM(events(*CALLS), plan=PARSERS)
    asked = body(
        tools=[TOOL],
        thinking={"type": "disabled"},
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    )
    async with in_process(llm) as client:
        answer = (await client.post(PATH, json=asked)).json()
    assert [block["type"] for block in answer["content"]] == ["tool_use"]
    assert llm.prompts.last_chat["template_kwargs"]["enable_thinking"] is False


@pytest.mark.parametrize(("plan", "budget"), [(PARSERS, 1024), (FakePlan(), None)])
async def test_a_budget_bounds_the_thinking_that_the_server_knows_of(
    plan: FakePlan, budget: int | None
) -> None:
    llm = FakeLLM(events(*TALK), plan=plan)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    async with in_process(llm) as client:
        answer = await client.post(PATH, json=body(thinking=thinking))
    assert answer.status_code == 200
    assert llm.requests[0].sampling.thinking_token_budget == budget
    assert llm.prompts.last_chat["template_kwargs"]["enable_thinking"] is True


@pytest.mark.parametrize(
    ("finish", "reason", "sequence"),
    [
        (Finish("stop"), "end_turn", None),
        (Finish("stop", "END"), "stop_sequence", "END"),
        (Finish("stop", 17), "end_turn", None),
        (Finish("length"), "max_tokens", None),
    ],
)
async def test_why_it_ended(finish: Finish, reason: str, sequence: str | None) -> None:
    script = events((Content("x"),), finish=finish)
    async with sdk(FakeLLM(script, plan=PARSERS)) as client:
        answer = await client.messages.create(**body(stop_sequences=["END"]))
    assert (answer.stop_reason, answer.stop_sequence) == (reason, sequence)


async def test_more_tokens_than_the_context_holds_may_be_asked_for() -> None:
    llm = FakeLLM(max_model_len=50)
    async with sdk(llm) as client:
        answer = await client.messages.create(**body(max_tokens=2000))
    assert llm.requests[0].sampling.max_tokens == 50 - 11
    assert answer.stop_reason == "model_context_window_exceeded"


async def test_the_sdk_lists_the_models() -> None:
    async with sdk(FakeLLM()) as client:
        assert [model.id async for model in client.models.list()] == ["fake", "alias"]
        assert (await client.models.retrieve("alias")).id == "alias"


async def test_tokens_are_counted_as_they_would_be_used() -> None:
    llm = FakeLLM(plan=PARSERS)
    asked: Any = {"model": "fake", "messages": HELLO, "system": "be brief", "tools": [TOOL]}
    async with sdk(llm) as client:
        counted = await client.messages.count_tokens(**asked)
        answer = await client.messages.create(**asked, max_tokens=1)
    assert counted.input_tokens == answer.usage.input_tokens
    async with in_process(llm) as http:
        check(MessageTokensCount, (await http.post(f"{PATH}/count_tokens", json=asked)).json())


async def test_the_request_reaches_the_model_as_a_chat() -> None:
    llm = FakeLLM(plan=PARSERS)
    asked = body(
        system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "text", "text": "let me see"},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Köln"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": "20",
                        "is_error": False,
                    },
                    {"type": "text", "text": "and?"},
                ],
            },
        ],
        tools=[TOOL],
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        stop_sequences=["END"],
        temperature=0.5,
        top_k=3,
        metadata={"user_id": "me"},
    )
    async with in_process(llm) as client:
        answer = await client.post(PATH, json=asked)
    assert answer.status_code == 200, answer.text
    request, chat = llm.requests[0], llm.prompts.last_chat
    assert request.sampling.stop_strings == ("END",) and request.sampling.top_k == 3
    assert chat["template_kwargs"]["reasoning_effort"] == "high"
    assert chat["template_kwargs"]["enable_thinking"] is True
    assert chat["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "let me see"}],
            "reasoning": "hm",
            "tool_calls": [
                {
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Köln"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "20"},
        {"role": "user", "content": [{"type": "text", "text": "and?"}]},
    ]
    assert request.tools == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": TOOL["input_schema"],
                "description": "the weather",
            },
        }
    ]


async def test_the_sdks_tool_runner_goes_on_without_a_kept_conversation() -> None:
    @anthropic.beta_async_tool
    async def weather(city: str) -> str:
        """The weather.

        Args:
            city: where
        """
        return f"sun in {city}"

    asked: list[list[Any]] = []

    def script(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        asked.append(llm.prompts.last_chat["messages"])
        return events(*(CALLS[:4] if len(asked) == 1 else TALK))(request)

    llm = FakeLLM(script, plan=PARSERS)
    async with sdk(llm) as client:
        runner = client.beta.messages.tool_runner(**body(), tools=[weather])
        reasons = [message.stop_reason async for message in runner]
    assert reasons == ["tool_use", "end_turn"]
    assert [message["role"] for message in asked[1]] == ["user", "assistant", "tool"]
    assert asked[1][-1]["content"] == "sun in Paris"


async def test_tools_may_be_chosen_freely_from_none() -> None:
    asked = body(tools=[], tool_choice={"type": "auto"}, max_tokens=1)
    async with in_process(FakeLLM()) as client:
        assert (await client.post(PATH, json=asked)).status_code == 200


async def test_what_agents_say_to_anthropics_accounts_is_no_part_of_the_prompt() -> None:
    llm = FakeLLM()
    billing = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.0; cch=1f2e3;"}
    told = {"type": "text", "text": "be brief"}
    async with sdk(llm) as client:
        for system, seen in (([billing, told], [told]), ([billing], None)):
            await client.messages.create(**body(system=system))
            messages = llm.prompts.last_chat["messages"]
            systems = [each["content"] for each in messages if each["role"] == "system"]
            assert systems == ([] if seen is None else [seen])


@pytest.mark.parametrize(
    ("edit", "kept"),
    [
        ({"keep": "all"}, ["a", "b", "c"]),
        ({"keep": {"type": "all"}}, ["a", "b", "c"]),
        ({"keep": {"type": "thinking_turns", "value": 2}}, ["b", "c"]),
        ({}, ["c"]),
    ],
)
async def test_old_thinking_is_cleared_where_that_is_asked_for(
    edit: dict[str, Any], kept: list[str]
) -> None:
    llm = FakeLLM(plan=PARSERS)
    messages: list[dict[str, Any]] = []
    for thought in "abc":
        thinking = {"type": "thinking", "thinking": thought, "signature": "s"}
        said = [thinking, {"type": "text", "text": "yes"}]
        messages += [*HELLO, {"role": "assistant", "content": said}]
    edits = [{**CLEARING, **edit}]
    asked = body(messages=[*messages, *HELLO], context_management={"edits": edits})
    async with in_process(llm) as client:
        assert (await client.post(PATH, json=asked)).status_code == 200
    chat = llm.prompts.last_chat["messages"]
    assert [each["reasoning"] for each in chat if "reasoning" in each] == kept


async def test_the_answer_goes_on_where_the_assistants_last_message_ends() -> None:
    llm = FakeLLM()
    async with sdk(llm) as client:
        await client.messages.create(
            **body(messages=[*HELLO, {"role": "assistant", "content": "The best is ("}])
        )
    chat = llm.prompts.last_chat
    assert chat["continue_final_message"] is True and chat["add_generation_prompt"] is False


async def test_errors_have_anthropics_shape() -> None:
    async with sdk(FakeLLM(), api_keys=("secret",)) as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await client.messages.create(**body())
        assert refused.value.body == {
            "type": "error",
            "error": {
                "type": "authentication_error",
                "message": "This server needs an API key: Authorization: Bearer KEY",
            },
        }
        allowed = client.with_options(api_key="secret")
        await allowed.messages.create(**body(max_tokens=1))
        with pytest.raises(anthropic.NotFoundError):
            await allowed.messages.create(**body(model="nobody"))
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.role"):
            await allowed.messages.create(**body(messages=[{"role": "robot", "content": "x"}]))


async def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_compact_for() -> None:
    long: Any = [{"role": "user", "content": "x" * 2000}]
    async with sdk(FakeLLM(max_model_len=1000)) as client:
        with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: messages"):
            await client.messages.create(**body(messages=long))


async def test_older_sdks_send_their_key_in_a_header_of_its_own() -> None:
    async with in_process(FakeLLM(), api_keys=("secret",)) as client:
        for headers, status in (
            ([("x-api-key", "secret")], 200),
            ([("x-api-key", "other")], 401),
            ([("x-api-key", "secret"), ("x-api-key", "secret")], 401),
            ([("authorization", "Bearer other"), ("x-api-key", "secret")], 200),
            ([("authorization", "Basic secret")], 401),
        ):
            answer = await client.post(PATH, json=body(max_tokens=1), headers=headers)
            assert answer.status_code == status, headers


async def test_overload_is_told_in_anthropics_words() -> None:
    llm = FakeLLM()
    llm.num_waiting = 10_000
    async with sdk(llm) as client:
        with pytest.raises(anthropic.RateLimitError) as refused:
            await client.messages.create(**body())
    assert refused.value.response.headers["retry-after"] == str(OverloadedError.retry_after_seconds)


async def test_a_failure_ends_the_stream_with_an_error_event() -> None:
    async with in_process(FakeLLM(breaks_off)) as client:
        text = (await client.post(PATH, json=body(stream=True))).text
    name, data = sse_events(text)[-1]
    assert name == "error"
    assert data["type"] == "error" and data["error"]["message"] == "it broke"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"stop": ["x"]}, "stop"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"speed": "fast"}, "speed"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "edits[0].type"),
        (
            {"context_management": {"edits": [{**CLEARING, "keep": "some"}]}},
            "'context_management.edits[0].keep': Input should be a valid dictionary",
        ),
        (
            {"context_management": {"edits": [{**CLEARING, "keep": {"type": "none"}}]}},
            "'context_management.edits[0].keep.type'",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "maybe"}}, "thinking.type"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "content[0].tool_use_id",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": 1}]}]},
            "content[0].input",
        ),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
    ],
)
async def test_bad_requests_are_400_and_name_the_field(fields: dict[str, Any], named: str) -> None:
    async with in_process(FakeLLM()) as client:
        answer = await client.post(PATH, json=body(**fields))
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and named in error["message"], error
    assert "ThinkingKept" not in error["message"]
