from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from jackfield.contracts.generation import ChoiceDelta, Finish
from jackfield.contracts.grammar import StructuredOutputs
from jackfield.contracts.messages import FinishReason, RequestFailed, TokenLogprobs
from jackfield.contracts.sampling import SamplingParams
from jackfield.contracts.text import (
    Content,
    ParserContext,
    Reasoning,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from jackfield.registry import Registry
from jackfield.text.events import merge_events
from jackfield.text.output import ChoiceOutput
from jackfield_tokenizers.fast import FastTokenizer
from jackfield_tool_parsers.formats import hermes as HermesToolParser


def encode(tokenizer: FastTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def run(
    output: ChoiceOutput, ids: Sequence[int], end: FinishReason, rng: random.Random | None = None
) -> list[ChoiceDelta]:
    """Feeds the ids, one by one or in random pieces; stops where the choice ends."""
    deltas: list[ChoiceDelta] = []
    at = 0
    while at < len(ids):
        size = 1 if rng is None else rng.randint(1, 3)
        piece = ids[at : at + size]
        at += size
        deltas.append(output.feed(piece, end if at >= len(ids) else FinishReason.RUNNING))
        if deltas[-1].finish is not None:
            break
    return deltas


def text_of(deltas: Sequence[ChoiceDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def new(tokenizer: FastTokenizer | None, **params: Any) -> ChoiceOutput:
    return ChoiceOutput(3, tokenizer, [1], SamplingParams(**params))


def test_exactly_the_last_delta_has_the_finish(bpe_tokenizer: FastTokenizer) -> None:
    ids = encode(bpe_tokenizer, "Hello \u4f60\u597d world")
    deltas = run(new(bpe_tokenizer), ids, FinishReason.LENGTH)
    assert [delta.finish for delta in deltas] == [None] * (len(ids) - 1) + [Finish("length")]
    assert [id for delta in deltas for id in delta.token_ids] == ids
    assert text_of(deltas) == "Hello \u4f60\u597d world"
    assert {delta.index for delta in deltas} == {3}


def test_events_say_the_text_where_there_is_no_parser(bpe_tokenizer: FastTokenizer) -> None:
    deltas = run(new(bpe_tokenizer), encode(bpe_tokenizer, "Hello world"), FinishReason.LENGTH)
    events = [event for delta in deltas for event in delta.events]
    assert merge_events(events) == [Content("Hello world")]


def test_stop_string_ends_the_choice_whatever_the_split(bpe_tokenizer: FastTokenizer) -> None:
    ids = encode(bpe_tokenizer, "Hello world, stop here. Hello")
    rng = random.Random(5)
    for include, expected in ((False, "Hello world, "), (True, "Hello world, stop h")):
        for _ in range(20):
            output = new(bpe_tokenizer, stop=["zzz", "stop h"], include_stop_str_in_output=include)
            deltas = run(output, ids, FinishReason.LENGTH, rng)
            assert text_of(deltas) == expected
            assert deltas[-1].finish == Finish("stop", "stop h")


def test_stop_string_in_the_last_token_wins_over_length(bpe_tokenizer: FastTokenizer) -> None:
    deltas = run(
        new(bpe_tokenizer, stop="world"), encode(bpe_tokenizer, "Hello world"), FinishReason.LENGTH
    )
    assert deltas[-1].finish == Finish("stop", "world") and text_of(deltas) == "Hello "


def test_held_back_text_comes_out_at_the_end(bpe_tokenizer: FastTokenizer) -> None:
    deltas = run(
        new(bpe_tokenizer, stop="world!"), encode(bpe_tokenizer, "Hello world"), FinishReason.LENGTH
    )
    assert text_of(deltas) == "Hello world"


def test_min_tokens_defers_stop_strings(bpe_tokenizer: FastTokenizer) -> None:
    ids = encode(bpe_tokenizer, "stop" * 4)
    assert len(ids) == 4
    deltas = run(new(bpe_tokenizer, stop="stop", min_tokens=2), ids, FinishReason.LENGTH)
    assert text_of(deltas) == "stopstop" and len(deltas) == 3
    assert deltas[-1].finish == Finish("stop", "stop")


def test_stop_token_gives_its_id_and_no_text(bpe_tokenizer: FastTokenizer) -> None:
    hello, stop = encode(bpe_tokenizer, "Hello"), encode(bpe_tokenizer, "stop")
    deltas = run(new(bpe_tokenizer, stop_token_ids=stop), [*hello, *stop], FinishReason.STOP)
    assert deltas[-1].finish == Finish("stop", stop[0])
    assert text_of(deltas) == "Hello" and deltas[-1].token_ids == tuple(stop)


def test_eos_gives_no_stop_reason(bpe_tokenizer: FastTokenizer) -> None:
    eos = bpe_tokenizer.eos_token_id
    assert eos is not None
    for params in ({}, {"skip_special_tokens": False}, {"stop_token_ids": [eos]}):
        ids = [*encode(bpe_tokenizer, "Hello"), eos]
        deltas = run(new(bpe_tokenizer, **params), ids, FinishReason.STOP)
        assert deltas[-1].finish == Finish("stop") and text_of(deltas) == "Hello"
    ignoring = new(bpe_tokenizer, ignore_eos=True, stop_token_ids=[eos])
    assert run(ignoring, [eos], FinishReason.STOP)[-1].finish == Finish("stop", eos)


def test_without_detokenizing_there_are_only_ids(bpe_tokenizer: FastTokenizer) -> None:
    for output in (new(bpe_tokenizer, detokenize=False), new(None)):
        (delta,) = run(output, [5], FinishReason.LENGTH)
        assert (delta.text, delta.events, delta.token_ids) == ("", (), (5,))
        assert delta.finish == Finish("length")


def test_error_flushes_the_text_and_carries_the_message(bpe_tokenizer: FastTokenizer) -> None:
    output = new(bpe_tokenizer, stop="worldly")
    first = output.feed(encode(bpe_tokenizer, "Hello world"))
    last = output.feed((), FinishReason.ERROR, failure=RequestFailed(1, "out of memory"))
    assert first.text + last.text == "Hello world"
    assert last.finish == Finish("error", message="out of memory")


@pytest.mark.parametrize(
    ("message", "param", "told"),
    [
        ("structured_outputs: too large", "structured_outputs", "response_format: too large"),
        ("logit_bias: too large", "logit_bias", "logit_bias: too large"),
        ("structured_outputs: is not the topic", None, "structured_outputs: is not the topic"),
    ],
)
def test_an_error_of_the_engine_names_the_field_that_the_request_has(
    message: str, param: str | None, told: str
) -> None:
    held = StructuredOutputs(regex="a", param="response_format")
    last = new(None, structured_outputs=held).feed(
        (), FinishReason.ERROR, failure=RequestFailed(1, message, param)
    )
    field = "response_format" if param == "structured_outputs" else param
    assert last.finish == Finish("error", None, told, field)


def test_logprobs_and_cached_tokens_are_passed_on(bpe_tokenizer: FastTokenizer) -> None:
    entry = TokenLogprobs(5, -0.5, 1, [5], [-0.5])
    delta = new(bpe_tokenizer).feed(
        [5], logprobs=[entry], prompt_logprobs=[entry], num_cached_tokens=16
    )
    assert delta.logprobs == (entry,) and delta.prompt_logprobs == (entry,)
    assert delta.num_cached_tokens == 16


@pytest.mark.parametrize("end", [FinishReason.LENGTH, FinishReason.ABORT])
def test_text_goes_through_reasoning_then_tools(
    bpe_tokenizer: FastTokenizer, end: FinishReason
) -> None:
    text = (
        "<think>\nA <tool_call> is needed.\n</think>\n\nLet me look."
        '<tool_call>\n{"name": "find", "arguments": {"what": "caf\u00e9 \U0001f600"}}\n</tool_call>'
    )
    ids = encode(bpe_tokenizer, text)
    rng = random.Random(7)
    for _ in range(10):
        output = ChoiceOutput(
            0,
            bpe_tokenizer,
            [1],
            SamplingParams(),
            Registry().load("reasoning_parsers", "qwen3")(ParserContext()),
            HermesToolParser(ParserContext()),
        )
        deltas = run(output, ids, end, rng)
        assert text_of(deltas) == text
        assert merge_events([event for delta in deltas for event in delta.events]) == [
            Reasoning("A <tool_call> is needed."),
            Content("Let me look."),
            ToolCallStart(0, "find"),
            ToolCallArguments(0, '{"what": "caf\u00e9 \U0001f600"}'),
            ToolCallEnd(0),
        ]


def test_a_stop_string_ends_the_parsers_too(bpe_tokenizer: FastTokenizer) -> None:
    ids = encode(bpe_tokenizer, '<tool_call>{"name": "f", "arguments": {"a": "Hello stop')
    output = ChoiceOutput(
        0, bpe_tokenizer, [1], SamplingParams(stop="stop"), None, HermesToolParser(ParserContext())
    )
    deltas = run(output, ids, FinishReason.LENGTH)
    events = merge_events([event for delta in deltas for event in delta.events])
    assert events == [
        ToolCallStart(0, "f"),
        ToolCallArguments(0, '{"a": "Hello "}'),
        ToolCallEnd(0),
    ]


@pytest.mark.parametrize(
    "params", [{}, {"stop": ["<t"]}, {"detokenize": False}, {"skip_special_tokens": False}]
)
@pytest.mark.parametrize("parses", [False, True])
def test_one_running_id_is_fed_as_any_other(
    bpe_tokenizer: FastTokenizer, params: dict[str, Any], parses: bool
) -> None:
    def output() -> ChoiceOutput:
        parser = HermesToolParser(ParserContext()) if parses else None
        return ChoiceOutput(3, bpe_tokenizer, [1], SamplingParams(**params), tool_parser=parser)

    one, other = output(), output()
    for token_id in encode(bpe_tokenizer, "He\u4f60\u597d wor<tool_call>\U0001f600"):
        delta = one.feed_running((token_id,), 7)
        assert delta == other.feed((token_id,), num_cached_tokens=7)
        if delta.finish is not None:
            break
