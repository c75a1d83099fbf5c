"""What a request may say: every field is honoured, harmless, or refused by name."""

from __future__ import annotations

import json
import time
import typing
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from tests.core.server.fake_llm import FakeLLM, FakePlan
from tests.core.server.http_server import in_process

from jackfield.contracts.generation import ChoiceDelta, Finish, GenerationRequest
from jackfield.contracts.messages import TokenLogprobs
from jackfield.errors import RequestError
from jackfield.server.asgi import parse_json_object
from jackfield.server.chat_request import ChatRequest
from jackfield.server.completion_request import CompletionRequest
from jackfield.server.spellings import ALIASES, REFUSED

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


def fields_of(params: Any) -> set[str]:
    names: set[str] = set()
    for kind in params.__mro__ if hasattr(params, "__mro__") else ():
        names |= set(typing.get_type_hints(kind)) if kind is not dict else set()
    return names | set(params.__annotations__)


@pytest.mark.parametrize(
    ("params", "model"),
    [
        (chat_create_params.CompletionCreateParamsStreaming, ChatRequest),
        (completion_create_params.CompletionCreateParamsStreaming, CompletionRequest),
    ],
)
def test_every_field_of_openais_requests_is_known(params: Any, model: Any) -> None:
    known = model.model_fields.keys() | ALIASES.keys() | REFUSED.keys()
    assert fields_of(params) - known == set()


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (TEXT, {}, "prompt"),
        (TEXT, {"prompt": []}, "prompt"),
        (TEXT, {"prompt": [1, "a"]}, "prompt[0]"),
        (TEXT, {"prompt": [[1], []]}, "prompt[1]"),
        (TEXT, {"prompt": [True]}, "prompt[0]"),
        (TEXT, {"prompt": [-1]}, "prompt"),
        (TEXT, {"prompt": [257]}, "prompt"),
        (TEXT, {"prompt": [1] * 1000}, "prompt"),
        (TEXT, {"prompt": "x", "temperature": "hot"}, "temperature"),
        (TEXT, {"prompt": "x", "temperature": -1}, "temperature"),
        (TEXT, {"prompt": "x", "top_p": 0}, "top_p"),
        (TEXT, {"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
        (TEXT, {"prompt": "x", "max_tokens": 0}, "max_tokens"),
        (TEXT, {"prompt": "x", "max_tokens": True}, "max_tokens"),
        (TEXT, {"prompt": "x", "n": 129}, "n"),
        (TEXT, {"prompt": ["x"] * 65, "n": 2}, "prompt"),
        (TEXT, {"prompt": "x", "stop": ["a"] * 17}, "stop"),
        (TEXT, {"prompt": "x", "stop": "a" * 257}, "stop"),
        (TEXT, {"prompt": "x", "stop": ["a", 3]}, "stop[1]"),
        (TEXT, {"prompt": "x", "stop": [""]}, "stop"),
        (TEXT, {"prompt": "x", "logit_bias": {"a": 1}}, "logit_bias"),
        (TEXT, {"prompt": "x", "logit_bias": {"1": 101}}, "logit_bias"),
        (TEXT, {"prompt": "x", "logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        (TEXT, {"prompt": "x", "suffix": "y"}, "suffix"),
        (TEXT, {"prompt": "x", "n": 3, "best_of": 2}, "best_of"),
        (TEXT, {"prompt": "x", "best_of": 2, "stream": True}, "best_of"),
        (CHAT, {"messages": HELLO, "best_of": 2}, "best_of"),
        (CHAT, {"messages": HELLO, "echo": True}, "echo"),
        (CHAT, {"messages": HELLO, "thinking": {"type": "enabled"}}, "thinking"),
        (CHAT, {"messages": HELLO, "extra_body": {"top_k": 1}}, "extra_body"),
        (
            CHAT,
            {
                "messages": HELLO,
                "enable_thinking": True,
                "chat_template_kwargs": {"enable_thinking": False},
            },
            "enable_thinking",
        ),
        (CHAT, {"messages": HELLO, "separate_reasoning": False}, "separate_reasoning"),
        (CHAT, {"messages": HELLO, "rid": "a b"}, "rid"),
        (TEXT, {"prompt": "x", "truncation_side": "right"}, "truncation_side"),
        (TEXT, {"prompt": "x", "guided_choice": "a"}, "guided_choice"),
        (TEXT, {"prompt": "x", "stream_options": {}}, "stream_options"),
        (TEXT, {"prompt": "x", "stream": True, "stream_options": {"a": 1}}, "stream_options.a"),
        (TEXT, {"prompt": "x", "stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
        (TEXT, {"prompt": "x", "logprobs": 21}, "logprobs"),
        (CHAT, {}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"role": "boss", "content": ""}]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "user", "contnt": ""}]}, "messages[0].contnt"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        (CHAT, {"messages": HELLO, "top_logprobs": 1}, "top_logprobs"),
        (CHAT, {"messages": HELLO, "logprobs": 5}, "logprobs"),
        (CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT, {"messages": HELLO, "max_completion_tokens": 0}, "max_completion_tokens"),
        (
            CHAT,
            {"messages": HELLO, "max_completion_tokens": 1, "max_tokens": 2},
            "max_completion_tokens",
        ),
        (CHAT, {"messages": HELLO, "response_format": {"type": "xml"}}, "response_format.type"),
        (CHAT, {"messages": HELLO, "store": True}, "store"),
        (CHAT, {"messages": [{**HELLO[0], "name": 1}]}, "messages[0].name"),
        (
            CHAT,
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": [1]}]},
            "messages[0].tool_call_id",
        ),
        (
            CHAT,
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": 1, "function": {"name": "f"}}]}
                ]
            },
            "messages[0].tool_calls[0].id",
        ),
        (CHAT, {"messages": HELLO, "tool_choice": "required"}, "tool_choice"),
        (CHAT, {"messages": HELLO, "tool_choice": "auto"}, "tool_choice"),
        (CHAT, {"messages": HELLO, "functions": [{"name": "f"}]}, "functions"),
        (CHAT, {"messages": HELLO, "modalities": ["text", "audio"]}, "modalities"),
        (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, "tools[0].function"),
        (
            CHAT,
            {"messages": HELLO, "continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
        ),
    ],
)
async def test_bad_requests_are_400_and_name_the_field(
    path: str, body: dict[str, Any], param: str
) -> None:
    async with in_process(FakeLLM()) as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert set(error) == {"message", "type", "param", "code"}
    assert param.rpartition(".")[2].partition("[")[0] in error["message"]


async def test_values_that_are_wrong_by_the_thousand_are_counted_and_not_listed() -> None:
    body = {"prompt": "x", "stream": True, "stream_options": {f"o{i}": 1 for i in range(200_000)}}
    async with in_process(FakeLLM()) as http:
        began = time.process_time()
        answer = await http.post(TEXT, json=body)
        assert time.process_time() - began < 2.0
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "200000 values are wrong"


async def test_a_request_with_tools_needs_a_tool_parser() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    body = {"messages": HELLO, "tools": [tool]}
    async with in_process(FakeLLM()) as http:
        assert (await http.post(CHAT, json=body)).json()["error"]["param"] == "tool_choice"
        answer = await http.post(CHAT, json=body | {"tool_choice": "none"})
        assert answer.status_code == 200
    llm = FakeLLM(plan=FakePlan(tool_parser="hermes"))
    async with in_process(llm) as http:
        await http.post(CHAT, json=body)
        await http.post(CHAT, json=body | {"tool_choice": "none"})
    assert [list(request.tools) for request in llm.requests] == [[tool], []]
    assert [request.parse for request in llm.requests] == [True, False]


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"a": "b"}, "user": "u", "store": False, "service_tier": "auto"},
        {"safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
        {"response_format": {"type": "text"}, "modalities": ["text"], "audio": None},
        {"guided_json": None, "functions": None, "suffix": "", "best_of": 1, "n": None},
        {"repeat_penalty": 1.2, "length_penalty": 1.0, "use_beam_search": False},
        {"max_completion_tokens": 3, "max_tokens": 3, "tool_choice": "none", "tools": []},
        {"tool_choice": "auto", "tools": [], "logprobs": False, "top_logprobs": 0},
        {"echo": False, "media_io_kwargs": {}, "truncation_side": "left", "no_stop_trim": False},
        {"separate_reasoning": True, "stream_reasoning": True, "return_hidden_states": False},
        {"what_other_servers_have": None, "messages": [{**HELLO[0], "thinking_blocks": None}]},
    ],
)
async def test_fields_without_effect_pass(body: dict[str, Any]) -> None:
    llm = FakeLLM()
    async with in_process(llm) as http:
        answer = await http.post(CHAT, json={"messages": HELLO} | body)
    assert answer.status_code == 200, answer.text
    expected = body.get("repeat_penalty", 1.0)
    assert llm.requests[0].sampling.repetition_penalty == expected


async def test_messages_reach_the_template_in_one_spelling() -> None:
    llm = FakeLLM()
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "refusal": None,
            "audio": None,
            "function_call": None,
            "provider_specific_fields": {"reasoning": "hm"},
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "4"},
    ]
    body = {
        "messages": messages,
        "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": False},
    }
    async with in_process(llm) as http:
        answer = await http.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    seen = llm.prompts.last_chat
    assert seen["messages"][2]["reasoning"] == "hm"
    assert seen["template_kwargs"] == {"enable_thinking": False, "reasoning_effort": "low"}
    assert seen["add_generation_prompt"] is True
    del body["chat_template_kwargs"]
    async with in_process(llm) as http:
        await http.post(CHAT, json={**body, "enable_thinking": False})
    assert llm.prompts.last_chat["template_kwargs"] == seen["template_kwargs"]


async def test_the_checkpoints_defaults_hold_where_the_request_is_silent() -> None:
    llm = FakeLLM(plan=FakePlan(generation_defaults={"temperature": 0.6, "top_k": 20}))
    async with in_process(llm) as http:
        await http.post(CHAT, json={"messages": HELLO, "top_k": 3, "temperature": None})
    sampling = llm.requests[0].sampling
    assert (sampling.temperature, sampling.top_k, sampling.max_tokens) == (0.6, 3, None)


async def test_a_default_length_is_cut_to_the_context_and_a_wish_is_not() -> None:
    llm = FakeLLM(plan=FakePlan(generation_defaults={"max_tokens": 2048}), max_model_len=50)
    async with in_process(llm) as http:
        await http.post(TEXT, json={"prompt": "0123456789"})
        await http.post(CHAT, json={"messages": [{"role": "user", "content": "0123"}]})
        await http.post(TEXT, json={"prompt": "0123456789", "max_tokens": 45})
    assert [request.sampling.max_tokens for request in llm.requests] == [40, 40, 45]


@pytest.mark.parametrize(("wanted", "told"), [(0, []), (1, ["a"]), (-1, ["a", "x"])])
async def test_a_chat_tells_as_many_alternatives_as_are_wanted(
    wanted: int, told: list[str]
) -> None:
    body = {"messages": HELLO, "max_tokens": 1, "logprobs": True, "top_logprobs": wanted}
    async with in_process(FakeLLM()) as http:
        answer = (await http.post(CHAT, json=body)).json()
    (token,) = answer["choices"][0]["logprobs"]["content"]
    assert [top["token"] for top in token["top_logprobs"]] == told


async def test_echo_without_tokens_repeats_the_prompt_alone() -> None:
    body = {"prompt": "hey", "echo": True, "max_tokens": 0, "logprobs": 0}
    async with in_process(FakeLLM()) as http:
        answer = (await http.post(TEXT, json=body)).json()
    assert answer["choices"][0]["text"] == "hey"
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [None, -0.5, -0.5]
    assert answer["usage"]["completion_tokens"] == 0


async def test_best_of_answers_the_choices_that_were_likeliest_on_average() -> None:
    logprobs = {0: (-1.0,), 1: (-0.1, -0.2, -0.15), 2: (-0.2,), 3: (-0.1,)}

    async def script(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        assert request.sampling.n == 4 and request.sampling.logprobs == 0
        for index, values in logprobs.items():
            entries = tuple(TokenLogprobs(97, value, 1, [], []) for value in values)
            ids = (97,) * len(values)
            yield [ChoiceDelta(index, str(index), ids, (), entries, finish=Finish("stop"))]

    async with in_process(FakeLLM(script)) as http:
        answer = (await http.post(TEXT, json={"prompt": "x", "n": 2, "best_of": 4})).json()
    assert [choice["text"] for choice in answer["choices"]] == ["3", "1"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["choices"][0]["logprobs"] is None
    assert answer["usage"]["completion_tokens"] == 6


async def test_only_allowed_tools_are_shown() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "fgh"]
    allowed = [{"type": "function", "function": {"name": name}} for name in "hf"]
    choice: dict[str, Any] = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": allowed},
    }
    body = {"messages": HELLO, "tools": tools, "tool_choice": choice}
    llm = FakeLLM(plan=FakePlan(tool_parser="hermes"))
    async with in_process(llm) as http:
        assert (await http.post(CHAT, json=body)).status_code == 200
        for wrong in ({"mode": "none", "tools": allowed}, {"mode": "auto", "tools": []}, None):
            choice["allowed_tools"] = wrong
            error = (await http.post(CHAT, json=body)).json()["error"]
            assert error["param"] == "tool_choice.allowed_tools"
        choice["allowed_tools"] = {"mode": "auto", "tools": [{"function": {"name": "x"}}]}
        assert "'x'" in (await http.post(CHAT, json=body)).json()["error"]["message"]
    assert llm.requests[0].tools == [tools[0], tools[2]]


@pytest.mark.parametrize("as_ids", [False, True])
async def test_text_offsets_are_places_in_the_text(as_ids: bool) -> None:
    text = "aß€b"

    async def script(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        ids = tuple(text.encode())
        entries = tuple(TokenLogprobs(token, -0.5, 1, [token], [-0.5]) for token in ids)
        yield [ChoiceDelta(0, text, ids, (), entries, finish=Finish("stop"))]

    body = {"prompt": "é", "logprobs": 1, "return_tokens_as_token_ids": as_ids}
    async with in_process(FakeLLM(script)) as http:
        logprobs = (await http.post(TEXT, json=body)).json()["choices"][0]["logprobs"]
    assert logprobs["text_offset"] == [0, 1, 1, 2, 2, 2, 3]
    if not as_ids:
        assert logprobs["tokens"][1:4] == ["bytes:\\xc3", "bytes:\\x9f", "bytes:\\xe2"]


async def test_token_ids_and_prompt_logprobs_are_returned_when_asked_for() -> None:
    body = {"prompt": "hey", "max_tokens": 2, "return_token_ids": True, "prompt_logprobs": 1}
    async with in_process(FakeLLM(), return_tokens_as_token_ids=True) as http:
        answer = (await http.post(TEXT, json=body | {"logprobs": 1})).json()
        del body["prompt_logprobs"]
        stream = (await http.post(TEXT, json=body | {"stream": True})).text
    choice = answer["choices"][0]
    assert choice["token_ids"] == [97, 98] and choice["prompt_token_ids"] == list(b"hey")
    assert choice["logprobs"]["tokens"] == ["token_id:97", "token_id:98"]
    assert choice["prompt_logprobs"][0] is None
    assert choice["prompt_logprobs"][1]["101"]["rank"] == 1
    frames = [json.loads(line[6:]) for line in stream.split("\n\n") if line.startswith("data: {")]
    assert frames[0]["choices"][0]["prompt_token_ids"] == list(b"hey")
    assert [frame["choices"][0]["token_ids"] for frame in frames] == [[97], [98]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\xff"}',
        b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"a": [' + b"[]," * (1 << 20) + b"[]]}",
    ],
)
def test_what_is_not_clean_json_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_json_object(body)


def test_nesting_up_to_the_limit_is_taken() -> None:
    assert parse_json_object(b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}")
    assert parse_json_object(b'{"a": [' + b"[]," * 100 + b"[]]}")


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
@pytest.mark.parametrize(("path", "asked"), [(CHAT, {"messages": HELLO}), (TEXT, {"prompt": "a"})])
async def test_a_server_may_tell_the_usage_of_every_stream(
    path: str, asked: dict[str, Any], options: dict[str, Any]
) -> None:
    body = {**asked, **options, "max_tokens": 3, "stream": True}
    for is_forced in (False, True):
        async with in_process(FakeLLM(), enable_force_include_usage=is_forced) as http:
            text = (await http.post(path, json=body)).text
        assert ('"completion_tokens":3' in text) is is_forced
