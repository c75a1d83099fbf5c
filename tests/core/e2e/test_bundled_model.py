"""``jackfield serve`` without an argument, and what OpenAI's client gets from it: a real model
over real HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from tests.serving import serving

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "The city"}},
            "required": ["location"],
        },
    },
}
PERSON: Any = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
NO_THINKING: Any = {"chat_template_kwargs": {"enable_thinking": False}}


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [sys.executable, "-m", "jackfield", "serve", "--num-threads", "1"]
    command += ["--cpu-kv-cache-gib", "0.25"]
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(command, log) as base:
        yield f"{base}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="-", max_retries=0, timeout=60) as made:
        yield made


def ask(client: openai.OpenAI, messages: Any, **options: Any) -> Any:
    answer = client.chat.completions.create(
        model="jackfield-mini", messages=messages, temperature=0, **options
    )
    return answer.choices[0]


def test_it_is_listed_by_its_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["jackfield-mini"]


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("hi", "Hello"),
        ("What is Jackfield?", "serving engine"),
        ("how do I install a plugin?", "pip install"),
        ("What is the capital of France?", "Paris"),
        ("Who won the world cup in 1998?", "do not know"),
    ],
)
def test_a_newcomer_gets_a_sensible_answer(client: openai.OpenAI, question: str, part: str) -> None:
    choice = ask(client, user(question))
    assert part in choice.message.content
    assert choice.finish_reason == "stop"


def test_it_thinks_and_the_thinking_is_told_apart(client: openai.OpenAI) -> None:
    choice = ask(client, user("What is 47 + 38?"))
    assert choice.message.content == "47 + 38 = 85."
    assert "carry 1" in choice.message.reasoning_content


def test_anthropics_budget_holds_the_thinking_short(url: str) -> None:
    with anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key="-", timeout=60) as client:
        lengths = []
        for budget in (2, 100):
            answer = client.messages.create(
                model="jackfield-mini",
                max_tokens=200,
                messages=user("What is 47 + 38?"),
                thinking={"type": "enabled", "budget_tokens": budget},
                extra_body={"temperature": 0},
            )
            thinking, text = answer.content
            assert thinking.type == "thinking" and text.type == "text" and text.text
            lengths.append(len(thinking.thinking.split()))
    assert lengths[0] <= 2 < lengths[1]


def test_thinking_can_be_turned_off(client: openai.OpenAI) -> None:
    choice = ask(client, user("What is 47 + 38?"), extra_body=NO_THINKING)
    assert choice.message.content == "47 + 38 = 85."
    assert not choice.message.reasoning_content


def test_a_stream_says_the_same_piece_by_piece(client: openai.OpenAI) -> None:
    question = user("Count from 1 to 20")
    whole = ask(client, question)
    stream = client.chat.completions.create(
        model="jackfield-mini", messages=question, temperature=0, stream=True
    )
    pieces: list[str] = []
    reasons = []
    for chunk in stream:
        pieces.append(chunk.choices[0].delta.content or "")
        reasons += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
    assert "".join(pieces) == whole.message.content == ", ".join(map(str, range(1, 21)))
    assert len([piece for piece in pieces if piece]) > 5
    assert reasons == ["stop"]


def test_a_stop_string_ends_the_answer(client: openai.OpenAI) -> None:
    choice = ask(client, user("Count from 1 to 20"), stop=["8"], extra_body=NO_THINKING)
    assert choice.message.content == "1, 2, 3, 4, 5, 6, 7, "
    assert choice.finish_reason == "stop"


def test_an_answer_that_is_cut_says_so(client: openai.OpenAI) -> None:
    choice = ask(client, user("Count from 1 to 20"), max_tokens=5, extra_body=NO_THINKING)
    assert choice.finish_reason == "length"


def test_it_remembers_the_conversation(client: openai.OpenAI) -> None:
    messages = [
        *user("My name is Zorblina."),
        {"role": "assistant", "content": "Nice to meet you, Zorblina."},
        *user("What is my name?"),
    ]
    assert "Zorblina" in ask(client, messages).message.content


@pytest.mark.parametrize("stream", [False, True])
def test_an_agents_loop_comes_to_its_end(client: openai.OpenAI, stream: bool) -> None:
    messages = user("What is the weather like in Skolvar today?")
    rounds = 0
    while True:
        rounds += 1
        message = _turn(client, messages, stream)
        messages.append(message)
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            assert call.function.name == "get_weather"
            assert json.loads(call.function.arguments) == {"location": "Skolvar"}
            result = json.dumps({"temperature": 21, "condition": "sunny"})
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    assert rounds == 2
    assert "21" in message.content and "sunny" in message.content


def _turn(client: openai.OpenAI, messages: Any, stream: bool) -> Any:
    if not stream:
        return ask(client, messages, tools=[WEATHER]).message
    with client.chat.completions.stream(
        model="jackfield-mini", messages=messages, tools=[WEATHER], temperature=0
    ) as events:
        return events.get_final_completion().choices[0].message


def test_a_question_that_needs_no_tool_calls_none(client: openai.OpenAI) -> None:
    message = ask(client, user("hi"), tools=[WEATHER]).message
    assert not message.tool_calls
    assert "Hello" in message.content


def test_a_schema_is_kept(client: openai.OpenAI) -> None:
    choice = ask(
        client,
        user("name Zorblat, age 41"),
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": PERSON},
        },
    )
    assert json.loads(choice.message.content) == {"name": "Zorblat", "age": 41}


def test_many_clients_get_the_answers_of_one(client: openai.OpenAI) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda n: ask(client, user(f"What is {n} + 38?")), range(40, 56))
    contents = [answer.message.content for answer in answers]
    assert contents == [f"{n} + 38 = {n + 38}." for n in range(40, 56)]
