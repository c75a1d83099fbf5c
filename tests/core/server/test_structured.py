from __future__ import annotations

import json
from typing import Any

import pytest
from tests.core.server.fake_llm import FakeLLM, FakePlan
from tests.core.server.http_server import in_process

from jackfield.contracts.generation import Finish, GenerationRequest
from jackfield.contracts.grammar import StructuredOutputs

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "integer"}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


async def wanted(path: str, llm: FakeLLM | None = None, **body: Any) -> StructuredOutputs | None:
    """What the request's output is held to."""
    llm = llm or FakeLLM()
    body |= {"messages": HELLO} if path == CHAT else {"prompt": "x"}
    async with in_process(llm) as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: StructuredOutputs | None = llm.requests[-1].sampling.structured_outputs
    return found


async def refusal(path: str, llm: FakeLLM | None = None, **body: Any) -> dict[str, Any]:
    body |= {"messages": HELLO} if path == CHAT else {"prompt": "x"}
    async with in_process(llm or FakeLLM()) as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"json_object": True}),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, {"json": SCHEMA}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            {"json": SCHEMA},
        ),
        ({"response_format": {"type": "json_object", "value": SCHEMA}}, {"json": SCHEMA}),
        ({"response_format": {"type": "json", "value": SCHEMA}}, {"json": SCHEMA}),
        ({"response_format": {"type": "regex", "value": "a+"}}, {"regex": "a+"}),
        ({"regex": "a+"}, {"regex": "a+"}),
        ({"ebnf": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        ({"structured_outputs": {"json": SCHEMA}}, {"json": SCHEMA}),
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"choice": ["a", "b"]}),
        ({"guided_json": SCHEMA}, {"json": SCHEMA}),
        ({"guided_regex": "a"}, {"regex": "a"}),
        ({"guided_choice": ["a"]}, {"choice": ["a"]}),
        ({"guided_grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        (
            {"guided_json": "{}", "guided_decoding_backend": "xgrammar:no-fallback"},
            {"json": "{}", "backend": "xgrammar"},
        ),
        (
            {"guided_json": {}, "guided_whitespace_pattern": " ?"},
            {"json": {}, "whitespace_pattern": " ?"},
        ),
        ({"guided_decoding_backend": "auto"}, None),
        ({"guided_json": None, "structured_outputs": None}, None),
    ],
)
async def test_every_spelling_asks_for_the_same(
    path: str, body: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    found = await wanted(path, **body)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert {name: getattr(found, name) for name in expected} == expected


OLDER_TAG = {
    "type": "structural_tag",
    "structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}],
    "triggers": ["<f"],
}


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": OLDER_TAG},
        {"structured_outputs": {"structural_tag": OLDER_TAG}},
        {"structured_outputs": {"structural_tag": json.dumps(OLDER_TAG)}},
    ],
)
async def test_the_older_structural_tag_becomes_todays(body: dict[str, Any]) -> None:
    found = await wanted(CHAT, **body)
    assert found is not None and isinstance(found.structural_tag, dict)
    form = found.structural_tag["format"]
    assert form["type"] == "triggered_tags" and form["triggers"] == ["<f"]
    assert form["tags"][0]["content"] == {"type": "json_schema", "json_schema": SCHEMA}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_object", "schema": "{}"}}, "response_format"),
        ({"response_format": {"type": "json", "value": "{}"}}, "response_format"),
        ({"response_format": {"type": "regex", "value": {}}}, "response_format"),
        ({"response_format": {"type": "structural_tag"}}, "response_format"),
        ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"yson": {}}}, "structured_outputs"),
        ({"structured_outputs": {}, "guided_regex": 5}, "guided_regex"),
        ({"structured_outputs": {"regex": "a"}, "guided_regex": "b"}, "guided_regex"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs",
        ),
    ],
)
async def test_what_is_wrong_is_named_as_the_client_spelled_it(
    body: dict[str, Any], param: str
) -> None:
    assert (await refusal(CHAT, **body))["param"] == param


async def test_a_refusal_of_the_engine_is_400_before_a_stream_begins() -> None:
    async def script(request: GenerationRequest) -> Any:
        from jackfield.contracts.generation import ChoiceDelta

        failed = Finish("error", None, "structured_outputs: no", "structured_outputs")
        yield [ChoiceDelta(0, "", (), finish=failed)]

    for stream in (False, True):
        error = await refusal(TEXT, FakeLLM(script), guided_json={}, stream=stream)
        assert error["param"] == "guided_json" and error["message"].startswith("guided_json: no")


def with_parser(structures: bool = True) -> FakeLLM:
    llm = FakeLLM(plan=FakePlan(tool_parser="hermes"))
    llm.structures = [] if structures else None
    return llm


@pytest.mark.parametrize(
    ("choice", "asked", "best_effort"),
    [
        (None, ("auto", True), True),
        ("auto", ("auto", True), True),
        ("required", ("required", True), False),
        ({"type": "function", "function": {"name": "g"}}, ("required", False), False),
    ],
)
async def test_calls_are_held_to_the_parsers_structure(
    choice: object, asked: tuple[str, bool], best_effort: bool
) -> None:
    llm = with_parser()
    found = await wanted(CHAT, llm, tools=TOOLS, tool_choice=choice)
    assert llm.structures == [asked]
    assert found is not None and found.best_effort == best_effort
    assert llm.requests[-1].tools == TOOLS


async def test_one_call_where_calls_may_not_be_parallel() -> None:
    llm = with_parser()
    await wanted(CHAT, llm, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert llm.structures == [("required", False)]


async def test_strict_tools_are_never_let_go() -> None:
    strict = {"type": "function", "function": {"name": "f", "strict": True}}
    found = await wanted(CHAT, with_parser(), tools=[strict])
    assert found is not None and not found.best_effort


async def test_no_tool_choice_no_structure() -> None:
    llm = with_parser()
    assert await wanted(CHAT, llm, tools=TOOLS, tool_choice="none") is None
    assert llm.requests[-1].tools == () and llm.structures == []


async def test_json_may_be_the_answer_where_tools_may_be_called() -> None:
    found = await wanted(CHAT, with_parser(), tools=TOOLS, response_format={"type": "json_object"})
    assert found is not None and isinstance(found.structural_tag, dict)
    assert found.structural_tag["format"] == {
        "type": "or",
        "elements": [
            {"type": "json_schema", "json_schema": {"type": "object"}},
            {"type": "const_string", "value": "required"},
        ],
    }


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
async def test_a_parser_without_a_structure_cannot_force_calls(choice: object) -> None:
    error = await refusal(CHAT, with_parser(False), tools=TOOLS, tool_choice=choice)
    assert error["param"] == "tool_choice" and "cannot force" in error["message"]
    assert await wanted(CHAT, with_parser(False), tools=TOOLS) is None


@pytest.mark.parametrize("choice", [{"type": "function", "function": {"name": "h"}}, {}, "any"])
async def test_a_tool_choice_that_is_none(choice: object) -> None:
    error = await refusal(CHAT, with_parser(), tools=TOOLS, tool_choice=choice)
    assert error["param"] == "tool_choice"
