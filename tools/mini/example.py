"""One example: a conversation, the answer wanted, and how to tell whether an answer is right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from tools.mini.source import Source

CHECKPOINT = (
    Path(__file__).parents[2]
    / "plugins/bundled_models/jackfield_bundled_models/checkpoints/jackfield-mini"
)
END = "<|im_end|>"
NO_THOUGHT = "<think>\n\n</think>\n\n"

Message = dict[str, Any]
Tool = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call."""

    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said: the answer without its thinking, and the calls in it."""

    content: str
    calls: tuple[Call, ...] = ()


Check = Callable[[Reply], bool]


@dataclass(slots=True, kw_only=True)
class Example:
    """``messages`` end with the turn to be answered. ``answer`` and ``calls`` are what training
    wants; ``check`` tells whether a reply will do. ``needs_thought``: too hard without thinking."""

    task: str
    messages: list[Message]
    thought: str
    answer: str = ""
    calls: Sequence[Call] = ()
    tools: list[Tool] = field(default_factory=list)
    needs_thought: bool = False
    check: Check | None = None

    def is_right(self, reply: Reply) -> bool:
        if self.check is not None:
            return self.check(reply)
        return reply.content.strip() == self.answer and list(reply.calls) == list(self.calls)


def ask(text: str) -> list[Message]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


# --- checks ------------------------------------------------------------------------------


def says(*parts: str) -> Check:
    """The answer holds all of them, whatever their case, and calls nothing."""
    return lambda reply: (
        not reply.calls and all(part.lower() in reply.content.lower() for part in parts)
    )


def says_number(number: float) -> Check:
    """The last number of the answer is this one."""

    def check(reply: Reply) -> bool:
        found = re.findall(r"-?\d+(?:\.\d+)?", reply.content)
        return bool(found) and float(found[-1]) == number and not reply.calls

    return check


# --- rendering ---------------------------------------------------------------------------


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((CHECKPOINT / "chat_template.jinja").read_text("utf-8"))


def render_prompt(example: Example, enable_thinking: bool = True) -> str:
    """The prompt as the server renders it."""
    return _template().render(
        messages=example.messages,
        tools=example.tools or None,
        add_generation_prompt=True,
        enable_thinking=enable_thinking,
    )


def render_calls(calls: Sequence[Call]) -> str:
    """Calls as the model writes them."""
    return "\n".join(
        '<tool_call>\n{"name": "'
        + call.name
        + '", "arguments": '
        + json.dumps(call.arguments, ensure_ascii=False)
        + "}\n</tool_call>"
        for call in calls
    )


def render_completion(example: Example, opening: str) -> str:
    """What the model is to say; ``opening`` is its thinking with the tags, or nothing."""
    calls = render_calls(example.calls)
    gap = "\n" if example.answer and calls else ""
    return f"{opening}{example.answer}{gap}{calls}{END}"


def render(example: Example, source: Source) -> tuple[str, str]:
    """Prompt and completion, in one of the ways in which thinking is turned on and off."""
    thinking = f"<think>\n{example.thought}\n</think>\n\n"
    kind = source.rng.random()
    if example.needs_thought and 0.5 <= kind < 0.93:
        kind = 0.0
    if kind < 0.5:
        return render_prompt(example), render_completion(example, thinking)
    if kind < 0.86:
        return render_prompt(example, False), render_completion(example, "")
    if kind < 0.93:
        # As where a grammar leaves no room for thinking.
        return render_prompt(example), render_completion(example, "")
    thinks = example.needs_thought or source.chance(0.4)
    switch = "/think" if thinks else "/no_think"
    if isinstance(example.messages[-1]["content"], str) and example.messages[-1]["role"] == "user":
        last = {**example.messages[-1], "content": f"{example.messages[-1]['content']} {switch}"}
        example.messages = [*example.messages[:-1], last]
        return render_prompt(example), render_completion(
            example, thinking if thinks else NO_THOUGHT
        )
    return render_prompt(example), render_completion(example, thinking)


def parse_reply(text: str) -> Reply:
    """A reply from what the model wrote, tags and all. A call that is no JSON is no call."""
    text = text.partition(END)[0]
    if text.lstrip().startswith("<think>"):
        text = text.partition("</think>")[2]
    calls = []
    for body in re.findall(r"<tool_call>(.*?)</tool_call>", text, flags=re.DOTALL):
        try:
            value = json.loads(body)
            calls.append(Call(value["name"], value["arguments"]))
        except (ValueError, KeyError, TypeError):
            calls.append(Call("", {}))
    return Reply(re.sub(r"<tool_call>.*", "", text, flags=re.DOTALL).strip(), tuple(calls))
