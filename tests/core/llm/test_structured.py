"""A real engine process and a tiny random model, held to schemas, regexes and grammars."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tests.checkpoints import make
from tests.plugins.grammars.schemas import WRITTEN, random_schema

from jackfield import LLM, SamplingParams, StructuredOutputs
from jackfield.errors import RequestError

SCHEMAS = [random_schema(random.Random(seed), depth=2) for seed in range(60)]
SPACED = tuple(range(0, 60, 6))
"""These may have space between their tokens, which a random model likes."""


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    options: dict[str, object] = {"max_model_len": 512, "max_num_seqs": 32}
    directory = str(make("Qwen3ForCausalLM"))
    with LLM(directory, device="cpu", use_tqdm_on_load=False, **options) as llm:
        yield llm


def answers(llm: LLM, wanted: list[StructuredOutputs], temperature: float) -> list[str | None]:
    """The text for each; None where it was cut at ``max_tokens``."""
    params = [
        SamplingParams(
            temperature=temperature, seed=index, max_tokens=250, structured_outputs=structure
        )
        for index, structure in enumerate(wanted)
    ]
    results = llm.generate([f"Number {i}:" for i in range(len(params))], params, use_tqdm=False)
    return [
        result.outputs[0].text if result.outputs[0].finish_reason == "stop" else None
        for result in results
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_finished_answer_is_valid_against_its_schema(llm: LLM, temperature: float) -> None:
    wanted = [
        StructuredOutputs(json=schema, disable_any_whitespace=index not in SPACED)
        for index, schema in enumerate(SCHEMAS)
    ]
    num_finished = 0
    for schema, text in zip(SCHEMAS, answers(llm, wanted, temperature), strict=True):
        if text is not None:
            num_finished += 1
            Draft202012Validator(schema).validate(json.loads(text))
    # A greedy random model may say one character for ever.
    assert num_finished >= (40 if temperature else 15)


def test_every_keyword_is_kept_or_refused(llm: LLM) -> None:
    num_finished = 0
    for index, schema in enumerate(WRITTEN):
        structure = StructuredOutputs(json=schema, disable_any_whitespace=True)
        try:
            (text,) = answers(llm, [structure], 1.0)
        except RequestError as error:
            assert error.param == "structured_outputs", (index, error)
            continue
        if text is not None:
            num_finished += 1
            Draft202012Validator(schema).validate(json.loads(text))
    assert num_finished > len(WRITTEN) // 2


@pytest.mark.parametrize(
    ("structure", "pattern"),
    [
        (StructuredOutputs(regex=r"[a-d]{2,6}-\d+(\.\d)?"), r"[a-d]{2,6}-\d+(\.\d)?"),
        (StructuredOutputs(choice=["yes", "no", "n\u00f6t \u4f60"]), "yes|no|n\u00f6t \u4f60"),
        (StructuredOutputs(grammar='root ::= "a" b\nb ::= [0-9]+ "b"'), "a[0-9]+b"),
        (StructuredOutputs(grammar='start: "a" /[0-9]+/ "b"'), "a[0-9]+b"),
        (StructuredOutputs(regex="[ab]{3}", backend="guidance"), "[ab]{3}"),
    ],
)
def test_regexes_choices_and_grammars_hold(
    llm: LLM, structure: StructuredOutputs, pattern: str
) -> None:
    texts = answers(llm, [structure] * 12, 1.0)
    assert any(texts)
    assert all(re.fullmatch(pattern, text) for text in texts if text is not None)


def test_choices_of_one_request_follow_their_own_way(llm: LLM) -> None:
    params = SamplingParams(
        n=6,
        temperature=1.0,
        seed=3,
        max_tokens=40,
        guided_decoding=StructuredOutputs(regex="[a-z]{8}"),
    )
    (result,) = llm.generate("x", params, use_tqdm=False)
    texts = [output.text for output in result.outputs]
    assert all(re.fullmatch("[a-z]{8}", text) for text in texts)
    assert len(set(texts)) > 1


def test_stop_strings_and_streams_work_under_a_grammar(llm: LLM) -> None:
    params = SamplingParams(
        temperature=1.0,
        max_tokens=60,
        stop="x",
        structured_outputs=StructuredOutputs(regex="[abx]{60}"),
    )
    deltas = list(llm.stream("x", params))
    text = "".join(delta.text for delta in deltas)
    assert re.fullmatch("[ab]*", text)
    finish = deltas[-1].finish
    assert finish is not None and finish.reason in ("stop", "length")


def test_requests_without_a_grammar_are_as_ever(llm: LLM) -> None:
    plain = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
    (alone,) = llm.generate("Hello", plain, use_tqdm=False)
    held = SamplingParams(max_tokens=20, structured_outputs=StructuredOutputs(regex="[ab]{20}"))
    mixed = llm.generate(["Hello", "x"], [plain, held], use_tqdm=False)
    assert mixed[0].outputs[0].token_ids == alone.outputs[0].token_ids


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        ({"json": {"type": "string", "not": {"pattern": "a"}}}, "not"),
        ({"regex": "(?=a)b"}, "regex|Regex|lookahead"),
        ({"regex": "("}, "regex|Regex"),
        ({"grammar": "root ::= missing"}, "missing"),
        ({"regex": "a", "backend": "no_such"}, "no_such"),
        ({"structural_tag": {"type": "structural_tag"}}, "format"),
    ],
)
def test_what_cannot_be_kept_is_refused(llm: LLM, structure: dict[str, Any], reason: str) -> None:
    params = SamplingParams(structured_outputs=StructuredOutputs(**structure))
    with pytest.raises(RequestError, match=reason) as caught:
        llm.generate("x", params, use_tqdm=False)
    assert caught.value.param == "structured_outputs"
