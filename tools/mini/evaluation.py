"""What jackfield-mini is measured by: cases on words and phrasings that no training saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.mini.example import END, Example, ask, parse_reply, render_prompt
from tools.mini.source import Source
from tools.mini.tasks.arithmetic import arithmetic, two_digit_addition
from tools.mini.tasks.context import lookup, remember
from tools.mini.tasks.copying import repeat, reverse
from tools.mini.tasks.facts import fact
from tools.mini.tasks.natural_tools import natural_request
from tools.mini.tasks.structured import json_object
from tools.mini.tasks.talk import knowledge, small_talk, unknown
from tools.mini.tasks.tool_use import (
    after_result,
    missing_argument,
    missing_tool,
    parallel_calls,
    same_calls,
    single_call,
)


def everyday_call(source: Source) -> Example:
    """One of the tools that people try first, alone, with words that were not trained on."""
    tool, text, call = natural_request(source)
    return Example(
        task="tools",
        messages=ask(text),
        tools=[tool],
        calls=[call],
        thought="",
        check=same_calls([call]),
    )


@dataclass(frozen=True, slots=True)
class Class:
    """A row of the table."""

    name: str
    task: Callable[[Source], Example]
    thinking: bool
    new_phrasing: bool = False


CLASSES = (
    Class("tool choice and exact arguments, unseen tools", single_call, True),
    Class("tool choice and exact arguments, unseen tools, no thinking", single_call, False),
    Class("two or three calls at once, unseen tools", parallel_calls, True),
    Class("everyday tools, unseen values", everyday_call, False),
    Class("everyday tools, unseen phrasing", everyday_call, False, True),
    Class("no tool fits", missing_tool, True),
    Class("an argument is missing", missing_argument, True),
    Class("answer after a tool's result", after_result, True),
    Class("two-digit addition, thinking", two_digit_addition, True),
    Class("two-digit addition, no thinking", two_digit_addition, False),
    Class("arithmetic of all kinds, thinking", arithmetic, True),
    Class("JSON for an unseen flat schema, no grammar, thinking", json_object, True),
    Class("JSON for an unseen flat schema, no grammar, no thinking", json_object, False),
    Class("JSON, unseen schema and unseen phrasing", json_object, False, True),
    Class("facts about Jackfield, typed carelessly", fact, True),
    Class("facts about Jackfield, unseen phrasing", fact, True, True),
    Class("small talk, typed carelessly", small_talk, True),
    Class("small talk, unseen phrasing", small_talk, True, True),
    Class("capitals and opposites, unseen phrasing", knowledge, True, True),
    Class("says that it does not know", unknown, True),
    Class("says that it does not know, unseen phrasing", unknown, True, True),
    Class("copying", repeat, False),
    Class("copying, unseen phrasing", repeat, False, True),
    Class("reversing a list or a word, thinking", reverse, True),
    Class("remembering what was said", remember, True),
    Class("looking up in a passage", lookup, True),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A question of a class."""

    of: Class
    example: Example

    @property
    def prompt(self) -> str:
        return render_prompt(self.example, self.of.thinking)


def cases(count: int, classes: Sequence[Class] = CLASSES) -> list[Case]:
    """``count`` cases of each class; always the same ones."""
    made = []
    for one in classes:
        source = Source(f"evaluation {one.name}", True, one.new_phrasing)
        made += [Case(one, one.task(source)) for _ in range(count)]
    return made


def table(asked: Sequence[Case], answers: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """The lines of a Markdown table, and what went wrong. An answer is the text with its tags; it
    ended by itself if it ends in ``<|im_end|>``."""
    right: dict[str, list[bool]] = {one.of.name: [] for one in asked}
    failures = []
    for case, answer in zip(asked, answers, strict=True):
        is_right = case.example.is_right(parse_reply(answer))
        right[case.of.name].append(is_right)
        if not is_right:
            wanted = case.example.answer or str(
                [(c.name, dict(c.arguments)) for c in case.example.calls]
            )
            failures.append(
                {"class": case.of.name, "prompt": case.prompt, "wanted": wanted, "answer": answer}
            )
    lines = ["| class | right | of |", "| --- | --- | --- |"]
    for name, marks in right.items():
        lines.append(f"| {name} | {100 * sum(marks) / len(marks):.1f} % | {len(marks)} |")
    share = 100 * sum(not answer.endswith(END) for answer in answers) / len(answers)
    lines.append(f"| answers that did not end by themselves | {share:.1f} % | {len(answers)} |")
    return lines, failures
