"""Forced tool calls of a random model: parsed back, they are valid calls of the tools given."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tests.checkpoints import make
from tests.plugins.grammars.schemas import random_schema

from jackfield import LLM, SamplingParams, StructuredOutputs
from jackfield.contracts.text import ParserContext, ToolCallArguments, ToolCallStart
from jackfield.registry import Registry

NUM_ROUNDS = 30


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    directory = str(make("Qwen3ForCausalLM"))
    with LLM(directory, device="cpu", max_model_len=512, use_tqdm_on_load=False) as llm:
        yield llm


def random_tools(seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    tools = []
    for index in range(chance.randrange(1, 4)):
        names = chance.sample(["city", "unit", "n", "tags", "when"], chance.randrange(4))
        parameters = {
            "type": "object",
            "properties": {name: random_schema(chance, depth=1) for name in names},
            "required": [name for name in names if chance.random() < 0.7],
        }
        function: dict[str, Any] = {"name": f"tool_{index}"}
        if names or chance.random() < 0.5:
            function["parameters"] = parameters
        tools.append({"type": "function", "function": function})
    return tools


def calls_of(parser: Any, tools: list[dict[str, Any]], text: str) -> list[tuple[str, str]]:
    made = parser(ParserContext(tools=tools))
    calls: list[tuple[str, str]] = []
    for event in [*(event for piece in text for event in made.feed(piece)), *made.finish()]:
        if isinstance(event, ToolCallStart):
            calls.append((event.name, ""))
        elif isinstance(event, ToolCallArguments):
            name, arguments = calls[event.index]
            calls[event.index] = (name, arguments + event.fragment)
        else:
            assert getattr(event, "text", "").strip() == "", event
    return calls


@pytest.mark.parametrize("parser_name", ["hermes", "llama3_json", "qwen3_coder"])
@pytest.mark.parametrize("choice", ["required", "named"])
def test_every_forced_call_is_a_valid_call(llm: LLM, parser_name: str, choice: str) -> None:
    parser = Registry().load("tool_parsers", parser_name)
    rounds = [random_tools(seed) for seed in range(NUM_ROUNDS)]
    if parser_name == "qwen3_coder":  # these cannot be kept in its XML, and are refused
        beyond = ("pattern", "minLength", "maxLength")
        rounds = [
            tools for tools in rounds if not any(each in json.dumps(tools) for each in beyond)
        ]
    params = []
    for seed, tools in enumerate(rounds):
        offered = tools[-1:] if choice == "named" else tools
        structure = parser.structure(offered, "required", parallel=False)
        params.append(
            SamplingParams(
                temperature=1.0,
                seed=seed,
                max_tokens=400,
                skip_special_tokens=False,
                structured_outputs=StructuredOutputs(structural_tag=structure),
            )
        )
    results = llm.generate(["x"] * len(rounds), params, use_tqdm=False)
    num_finished = 0
    for tools, result in zip(rounds, results, strict=True):
        (output,) = result.outputs
        if output.finish_reason != "stop":
            continue
        num_finished += 1
        ((name, arguments),) = calls_of(parser, tools, output.text)
        by_name = {tool["function"]["name"]: tool["function"] for tool in tools}
        assert name in by_name if choice == "required" else name == [*by_name][-1]
        parameters = by_name[name].get("parameters", {"type": "object"})
        Draft202012Validator(parameters).validate(json.loads(arguments))
    assert num_finished > len(rounds) // 2
