"""Namespaces of functions in ``/v1/responses``: what the model sees, and what the client reads."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.scripts import events
from tests.core.server.sdk_models import sse_events
from tests.core.server.test_responses import PARSERS, PATH, TOOL, check_event, check_response, http

from jackfield.contracts.text import ToolCallArguments, ToolCallEnd, ToolCallStart


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {"type": "object"}, **more}


def namespace(name: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "description": f"tools of {name}", "tools": tools}


def calling(name: str) -> Any:
    return events((ToolCallStart(0, name), ToolCallArguments(0, "{}"), ToolCallEnd(0)))


DOCS = namespace(
    "mcp__docs",
    function("search", description="finds pages", strict=True),
    {"type": "custom", "name": "shell"},
    function("rare", defer_loading=True),
)
TOOLS = [TOOL, DOCS, {"type": "tool_search"}, namespace("images", {"type": "custom", "name": "a"})]


async def test_the_model_sees_functions_and_the_client_its_namespaces() -> None:
    llm = FakeLLM(calling("mcp__docs__search"), plan=PARSERS)
    body = {"input": "x", "tools": TOOLS}
    async with http(llm) as client:
        answer = check_response((await client.post(PATH, json=body)).json())
        stream = sse_events((await client.post(PATH, json={**body, "stream": True})).text)
    weather, search = llm.prompts.last_chat["tools"]
    assert weather["function"]["name"] == "weather"
    assert search["function"].items() >= {"name": "mcp__docs__search", "strict": True}.items()
    assert [tool.type for tool in answer.tools] == ["function", "namespace"]
    assert [tool.name for tool in answer.tools[1].tools] == ["search"]
    for _, data in stream:
        check_event(data)
    done = next(data for kind, data in stream if str(kind).endswith("arguments.done"))
    assert done["name"] == "search"
    items = [data["item"] for kind, data in stream if "output_item" in str(kind)]
    for item in (*items, answer.output[0].model_dump()):
        assert (item["namespace"], item["name"]) == ("mcp__docs", "search")


async def test_calls_of_namespaces_may_be_sent_again_and_are_kept() -> None:
    llm = FakeLLM(calling("mcp__docs__search"), plan=PARSERS)
    async with http(llm) as client:
        first = (await client.post(PATH, json={"input": "x", "tools": TOOLS})).json()
        (call,) = first["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "y"}
        for more in (
            {"previous_response_id": first["id"], "input": [output]},
            {"input": [{"role": "user", "content": "x"}, call, output]},
        ):
            answer = await client.post(PATH, json={"tools": TOOLS, **more})
            assert answer.status_code == 200, answer.text
            said = llm.prompts.last_chat["messages"][1]["tool_calls"][0]["function"]
            assert said == {"name": "mcp__docs__search", "arguments": "{}"}


async def test_functions_outside_of_namespaces_have_none() -> None:
    async with http(FakeLLM(calling("weather"), plan=PARSERS)) as client:
        answer = (await client.post(PATH, json={"input": "x", "tools": TOOLS})).json()
    assert answer["output"][0]["name"] == "weather" and "namespace" not in answer["output"][0]


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([function("a__b"), namespace("a", function("b"))], "tools"),
        ([namespace("a__", function("b")), namespace("a", function("b"))], "tools"),
        ([namespace("a" * 100, function("b" * 100))], "tools"),
        ([namespace("a", function("b c"))], "tools[0].tools[0].name"),
        ([namespace("a", {"type": "custom", "name": "b"})], "tools[0].tools[0].type"),
        ([{"type": "namespace", "name": "a"}], "tools[0].tools"),
        ([namespace("a")], "tools[0].tools"),
        ([None, TOOL], "tools[0]"),
        ([namespace("a", *(function(f"f{i}") for i in range(8)))], "tools"),
    ],
)
async def test_what_is_wrong_is_named(tools: list[Any], param: str) -> None:
    async with http(FakeLLM(plan=PARSERS), max_tools=8) as client:
        answer = await client.post(PATH, json={"input": "x", "tools": tools})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text
