"""How much of each task the training sees, and what stands around the question."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tools.mini.example import Example, Message, render
from tools.mini.source import Source
from tools.mini.tasks.arithmetic import (
    arithmetic,
    comparison,
    counting,
    two_digit_addition,
)
from tools.mini.tasks.context import acknowledge, lookup, remember
from tools.mini.tasks.copying import (
    babble,
    bullets,
    name_some,
    pick_item,
    repeat,
    replace,
    reverse,
    sort,
    spell,
)
from tools.mini.tasks.facts import FACTS, fact
from tools.mini.tasks.stories import story
from tools.mini.tasks.structured import json_object
from tools.mini.tasks.talk import gibberish, knowledge, small_talk, unknown
from tools.mini.tasks.tool_use import (
    after_result,
    missing_argument,
    missing_tool,
    next_call,
    parallel_calls,
    single_call,
)

Task = Callable[[Source], Example]

WEIGHTS: tuple[tuple[Task, int], ...] = (
    (single_call, 220),
    (parallel_calls, 90),
    (missing_tool, 30),
    (missing_argument, 20),
    (after_result, 70),
    (next_call, 25),
    (json_object, 190),
    (arithmetic, 90),
    (two_digit_addition, 35),
    (comparison, 12),
    (counting, 12),
    (repeat, 60),
    (reverse, 40),
    (spell, 22),
    (pick_item, 20),
    (sort, 15),
    (bullets, 15),
    (name_some, 15),
    (replace, 15),
    (remember, 45),
    (acknowledge, 10),
    (lookup, 50),
    (small_talk, 90),
    (fact, 130),
    (knowledge, 30),
    (unknown, 60),
    (gibberish, 6),
    (story, 25),
)
_TASKS = [task for task, _ in WEIGHTS]
_TOTALS = [sum(weight for _, weight in WEIGHTS[: place + 1]) for place in range(len(WEIGHTS))]
_WITHOUT_TOOLS: tuple[Task, ...] = (
    small_talk, small_talk, fact, knowledge, arithmetic, arithmetic, repeat, counting, story,
    remember, lookup,
)  # fmt: skip
_TURNS: tuple[Task, ...] = (
    small_talk, fact, arithmetic, repeat, reverse, knowledge, unknown, acknowledge, counting,
    name_some, lookup,
)  # fmt: skip
_SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a helpful assistant.",
    "You are Jackfield Mini.", "Be brief.", "Answer in one sentence.", "Be concise.",
    "You are a friendly assistant.", "You are an AI assistant that helps people.",
    "Help the user.", "You are a helpful AI.", "You are a helpful assistant. Answer truthfully.",
    "Answer the user's questions.", "You are a bot.", "Use the tools where they help.",
    "You are a helpful assistant with access to tools.", "Be polite and precise.",
)  # fmt: skip


def example(source: Source) -> Example:
    """One example of the mixture, with or without a system prompt, turns before, and tools that
    have nothing to do with it."""
    (task,) = source.rng.choices(_TASKS, cum_weights=_TOTALS)
    made = task(source)
    if not made.tools and source.chance(0.09):
        made = _beside_tools(source)
    if not made.tools and made.task != "context" and source.chance(0.2):
        made.messages = [*_history(source), *made.messages]
    elif made.tools and source.chance(0.08):
        made.messages = [*_history(source), *made.messages]
    elif made.task == "context" and source.chance(0.3):
        made.messages = [*made.messages[:-1], *_history(source), made.messages[-1]]
    if all(message["role"] != "system" for message in made.messages) and source.chance(0.4):
        made.messages = [_system(source), *made.messages]
    # A passage in the system prompt has to stay in front.
    made.messages.sort(key=lambda message: message["role"] != "system")
    return made


def _beside_tools(source: Source) -> Example:
    """Something that needs none of the tools there are."""
    made = source.pick(_WITHOUT_TOOLS)(source)
    made.tools = single_call(source).tools
    return made


def _history(source: Source) -> list[Message]:
    """Earlier turns: short ones mostly, now and then a long conversation."""
    turns: list[Message] = []
    for _ in range(source.pick((1, 1, 1, 2, 2, 3, 4, 6, 20)) if source.chance(0.97) else 60):
        earlier = source.pick(_TURNS)(source)
        if earlier.messages[0]["role"] == "system":
            continue
        turns += [*earlier.messages, {"role": "assistant", "content": earlier.answer}]
    return turns


def _system(source: Source) -> Message:
    text = source.pick(_SYSTEM_PROMPTS)
    if source.chance(0.2):
        text = f"{text} Today is {source.date()}."
    if source.chance(0.1):
        text = f"You are {source.coined()}, an assistant for {source.noun()}s. {text}"
    return {"role": "system", "content": text if source.chance(0.95) else ""}


def texts(source: Source) -> Iterator[tuple[str, str]]:
    """Without end: what is read, and what is to be said after it."""
    while True:
        kind = source.rng.random()
        if kind < 0.03:
            read, said = babble(source)
            yield read, said + "<|endoftext|>"
        elif kind < 0.04:
            yield "", story(source).answer + "<|endoftext|>"
        elif kind < 0.045:
            yield "", source.pick(FACTS).answer + "<|endoftext|>"
        else:
            yield render(example(source), source)
