"""The training data: every example is right by its own check, and what is held apart stays so."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from tokenizers import Tokenizer
from tools.mini.evaluation import CLASSES, cases, table
from tools.mini.example import (
    CHECKPOINT,
    END,
    Example,
    parse_reply,
    render_completion,
    render_prompt,
)
from tools.mini.feed import PADDING, READ, SAID, rows
from tools.mini.mixture import example, texts
from tools.mini.source import Source, is_held_apart, pool
from tools.mini.tasks import arithmetic
from tools.mini.tasks.facts import FACTS
from tools.mini.tasks.fields import invent_fields
from tools.mini.tasks.structured import json_object, satisfies
from tools.mini.tasks.tool_use import single_call

from jackfield.text.chat_template import ChatTemplate
from jackfield_tokenizers.auto import AutoTokenizerMode


def examples(count: int, seed: str = "test") -> list[Example]:
    source = Source(seed)
    return [example(source) for _ in range(count)]


def test_every_example_passes_its_own_check() -> None:
    for made in examples(2000):
        assert made.is_right(parse_reply(render_completion(made, ""))), made


def test_another_answer_does_not_pass() -> None:
    for made in examples(500):
        assert not made.is_right(parse_reply(f"qqq{END}")), made


def test_the_same_seed_gives_the_same_texts() -> None:
    one, other = (list(islice(texts(Source("7")), 200)) for _ in range(2))
    assert one == other != list(islice(texts(Source("8")), 200))


def test_training_prompts_are_those_of_the_server() -> None:
    source = AutoTokenizerMode().load(str(CHECKPOINT)).chat_template
    assert source is not None
    template = ChatTemplate(source)
    for made in examples(200):
        for thinking in (True, False):
            rendered = template.render(
                made.messages, tools=made.tools, template_kwargs={"enable_thinking": thinking}
            )
            assert rendered == render_prompt(made, thinking)


def test_tools_and_schemas_of_training_have_no_word_that_is_held_apart() -> None:
    source = Source("names").strict()
    kept = {word for name in ("NOUNS", "ADJECTIVES") for word in pool(name, True)}
    for field in (field for _ in range(400) for field in invent_fields(source, 2)):
        assert not kept & set(field.words.split())


def test_fields_of_the_evaluation_have_only_such_words() -> None:
    source = Source("names", held_apart=True).strict()
    for field in (field for _ in range(400) for field in invent_fields(source, 2)):
        assert all(is_held_apart(part) for part in field.words.split())


def test_phrasings_are_kept_apart() -> None:
    phrasings = [str(number) for number in range(16)]
    trained = {Source(seed).phrasing(phrasings) for seed in range(200)}
    kept = {Source(seed, True, new_phrasing=True).phrasing(phrasings) for seed in range(50)}
    assert kept == {"7", "15"} and trained == set(phrasings) - kept


def test_objects_are_valid_by_their_schema() -> None:
    source = Source("json")
    seen = 0
    for _ in range(300):
        made = json_object(source)
        said = "\n".join(message["content"] for message in made.messages)
        start = re.search(r'\{\s*"(?:type|properties|title)": ', said)
        if start is None:
            continue
        schema: dict[str, Any] = json.JSONDecoder().raw_decode(said[start.start() :])[0]
        if "properties" not in schema:
            continue
        seen += 1
        jsonschema.validate(json.loads(made.answer), schema)
        assert satisfies(made.answer, schema, {})
        assert not satisfies(made.answer.replace('": ', '_": ', 1), schema, {})
    assert seen > 100


def test_calls_fit_their_tools() -> None:
    source = Source("calls")
    for _ in range(300):
        made = single_call(source)
        tools = {tool["function"]["name"]: tool["function"] for tool in made.tools}
        for call in made.calls:
            jsonschema.validate(call.arguments, tools[call.name].get("parameters", {}))


@pytest.mark.parametrize("seed", range(20))
def test_columns_come_to_the_right_result(seed: int) -> None:
    source = Source(seed)
    a, b = source.between(0, 9999), source.between(0, 9999)
    assert arithmetic.sum_in_columns(a, b).endswith(f"= {a + b}")
    assert arithmetic.difference_in_columns(a, b).endswith(f"= {a - b}")
    digits = re.findall(r"write (\d)", arithmetic.sum_in_columns(a, b))
    last_carry = re.findall(r"carry (\d)", arithmetic.sum_in_columns(a, b))[-1]
    assert int(last_carry + "".join(reversed(digits))) == a + b
    larger, smaller = max(a, b), min(a, b)
    digits = re.findall(r"write (\d)", arithmetic.difference_in_columns(larger, smaller))
    assert int("".join(reversed(digits))) == larger - smaller


def test_answers_about_jackfield_hold_what_they_are_checked_for() -> None:
    for fact in FACTS:
        assert fact.must_hold.lower() in fact.answer.lower()
        assert len(fact.questions) >= 8


def test_packed_rows_hold_whole_documents() -> None:
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    batch = next(rows("3", tokenizer, 1024, 6))
    assert batch.ids.shape == batch.roles.shape == batch.documents.shape == (6, 1024)
    for ids, roles, documents in zip(*batch, strict=True):
        for number in range(1, documents.max() + 1):
            own = documents == number
            assert roles[own][0] == PADDING
            assert set(roles[own][1:]) <= {READ, SAID}
            assert roles[own][-1] == SAID
            if ids[own][0] == tokenizer.token_to_id("<|im_start|>"):
                assert ids[own][-1] == tokenizer.token_to_id(END)
        assert not roles[documents == 0].any()


def test_the_table_counts_what_is_right_and_what_did_not_end() -> None:
    asked = cases(3, CLASSES[:2])
    answers = [render_completion(case.example, "") for case in asked]
    answers[0] = "wrong and without an end"
    lines, failures = table(asked, answers)
    assert "| 66.7 % | 3 |" in lines[2] and "| 100.0 % | 3 |" in lines[3]
    assert "| 16.7 % | 6 |" in lines[-1]
    assert [failure["answer"] for failure in failures] == ["wrong and without an end"]


def test_cases_are_always_the_same() -> None:
    assert [case.prompt for case in cases(4)] == [case.prompt for case in cases(4)]
