from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.core.planning.conftest import CONFIG, Plan

from jackfield.errors import ConfigError, UnknownPluginError

QWEN = "<tools> <tool_call> {'name': f, \"arguments\": a} </tool_call>"
TEMPLATE = {
    "start_anchor": "x",
    "fields": {"tool_calls": {"open": "<call>", "close": "</call>", "content": "json"}},
}


def write(checkpoint: Path, **tokenizer_config: object) -> None:
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))


def test_a_named_parser_is_taken_whatever_the_checkpoint_says(plan: Plan, checkpoint: Path) -> None:
    write(checkpoint, chat_template="[TOOL_CALLS]")
    assert plan(tool_call_parser="hermes").tool_parser == "hermes"
    assert plan().tool_parser is None


def test_auto_takes_the_response_template_then_the_chat_template_then_the_architecture(
    plan: Plan, checkpoint: Path
) -> None:
    write(checkpoint)
    assert plan(tool_call_parser="auto").tool_parser == "hermes"  # Qwen3ForCausalLM
    write(checkpoint, chat_template="[TOOL_CALLS]")
    assert plan(tool_call_parser="auto").tool_parser == "mistral"
    write(checkpoint, chat_template="[TOOL_CALLS]", response_template=TEMPLATE)
    made = plan(tool_call_parser="auto")
    assert made.tool_parser == "hf"
    assert made.checkpoint_text.response_template == TEMPLATE


def test_auto_looks_at_the_template_that_requests_with_tools_get(
    plan: Plan, checkpoint: Path
) -> None:
    named = [{"name": "default", "template": QWEN}, {"name": "tool_use", "template": "functools["}]
    write(checkpoint, chat_template=named)
    assert plan(tool_call_parser="auto").tool_parser == "phi4_mini_json"
    given = plan(tool_call_parser="auto", chat_template="{{ '<|tool_calls_section_begin|>' }}")
    assert given.tool_parser == "kimi_k2"
    write(checkpoint, chat_template="nothing")
    (checkpoint / "chat_template.jinja").write_text("<minimax:tool_call>")
    assert plan(tool_call_parser="auto").tool_parser == "minimax_m2"


def test_auto_that_finds_nothing_is_refused_for_tools_and_no_parser_for_thinking(
    plan: Plan, checkpoint: Path
) -> None:
    config = CONFIG | {"architectures": ["OPTForCausalLM"]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="--tool-call-parser auto: neither the chat template"):
        plan(tool_call_parser="auto")
    assert plan(reasoning_parser="auto").reasoning_parser is None


def test_a_parser_that_cannot_follow_the_checkpoint_is_refused_at_the_start(plan: Plan) -> None:
    with pytest.raises(ConfigError, match="reads the response_template"):
        plan(tool_call_parser="hf")


def test_what_was_chosen_for_the_user_says_so(plan: Plan) -> None:
    made = plan(tool_call_parser="auto", reasoning_parser="qwen3")
    reasons = {each.kind: (each.name, each.reason) for each in made.choices}
    assert reasons["tool_parsers"] == ("hermes", "the checkpoint, by --tool-call-parser auto")
    assert reasons["reasoning_parsers"] == ("qwen3", "--reasoning-parser")


def test_an_unknown_parser_is_refused(plan: Plan) -> None:
    with pytest.raises(UnknownPluginError, match="did you mean 'hermes'"):
        plan(tool_call_parser="hermez")
