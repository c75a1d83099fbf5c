"""Outputs of models, by example."""

from __future__ import annotations

import pytest

from jackfield.contracts.text import (
    CheckpointText,
    Content,
    Event,
    ParserContext,
    Reasoning,
    ReasoningParser,
)
from jackfield.errors import ConfigError
from jackfield.registry import Registry
from jackfield.testing.reasoning_parsers import ReasoningParserContract
from jackfield.text.events import merge_events
from jackfield_reasoning_parsers.auto import AutoReasoningParser
from jackfield_reasoning_parsers.identity import (
    IdentityReasoningParser,
    MiniMaxM2AppendThinkReasoningParser,
)
from jackfield_reasoning_parsers.response_template import HfReasoningParser

CHAT = "<|im_start|>assistant\n"


def parse(name: str, text: str, context: ParserContext | None = None) -> list[Event]:
    parser: type[ReasoningParser] = Registry().load("reasoning_parsers", name)
    results = []
    for pieces in ([text], list(text)):
        made = parser(context or ParserContext())
        said = [event for piece in pieces for event in made.feed(piece)]
        results.append(merge_events([*said, *made.finish()]))
    assert results[0] == results[1]
    return results[0]


@pytest.mark.parametrize(
    ("suffix", "text", "events"),
    [
        ("", "no end tag", [Reasoning("no end tag")]),
        ("<think>\n\n</think>\n\n", "Hi.", [Content("Hi.")]),
        ("", "a</think>b</think>c", [Reasoning("a"), Content("b</think>c")]),
        ("", "  <think>a</think>b", [Reasoning("a"), Content("b")]),
        ("old </think> answer<|Assistant|>", "a</think>b", [Reasoning("a"), Content("b")]),
        ("", "<think>a</thin", [Reasoning("a</thin")]),
    ],
)
def test_deepseek_r1(suffix: str, text: str, events: list[Event]) -> None:
    assert parse("deepseek_r1", text, ParserContext(prompt_suffix=suffix)) == events


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("Hi.", [Content("Hi.")]),
        ("Hi. <think>a</think>", [Content("Hi. <think>a</think>")]),
        ("\n<think>\n\n</think>\n\nHi.", [Content("Hi.")]),
        ("<think>\ncut off", [Reasoning("cut off")]),
        ("<thi", [Content("<thi")]),
        (" " * 300 + "<think>", [Content(" " * 300 + "<think>")]),
        (
            "<think>a\n<tool_call>\n<function=f>",
            [Reasoning("a"), Content("<tool_call>\n<function=f>")],
        ),
        ("<think>a <tool_call> b</think>c", [Reasoning("a <tool_call> b"), Content("c")]),
    ],
)
def test_qwen3(text: str, events: list[Event]) -> None:
    assert parse("qwen3", text, ParserContext(prompt_suffix=CHAT)) == events


@pytest.mark.parametrize(
    "context",
    [
        ParserContext(prompt_suffix=CHAT, template_kwargs={"enable_thinking": False}),
        ParserContext(prompt_suffix=CHAT + "<think>\n\n</think>\n\n"),
    ],
)
def test_qwen3_without_thinking_everything_is_content(context: ParserContext) -> None:
    text = "<think>\nwell\n</think>\n\nHi."
    assert parse("qwen3", text, context) == [Content(text)]


@pytest.mark.parametrize(
    ("name", "text", "events"),
    [
        ("kimi-k2", "a<|tool_calls_section_begin|>x", ["a", "<|tool_calls_section_begin|>x"]),
        ("glm45", "<think>a<tool_call>f\n", ["a", "<tool_call>f\n"]),
        ("ernie45", "a\n</think>\n\n\n<tool_call>\n{}", ["a", "<tool_call>\n{}"]),
        ("ernie45", "a</think>\n<response>\nb\n</response>\n", ["a", "b"]),
        ("hunyuan", "<think>\n\n</think>\n<answer>\nb\n</answer>", ["", "b"]),
        ("hunyuan", "<answer>\nb</ans", ["", "b</ans"]),
        ("cohere_command4", "<|START_TEXT|>b<|END_TEXT|>", ["", "b"]),
        ("cohere_command3", "<|START_THINKING|>a<|START_ACTION|>[", ["a", "<|START_ACTION|>["]),
        ("minimax-m3", "</mm:think>b", ["", "b"]),
        ("granite", "Here's my thought process: a Here is my response: b", [" a ", " b"]),
        ("k2_horizon", "<ifm|think_fast>a</ifm|think_fast>b", ["a", "b"]),
        ("gemma4", "<|channel>thought\na\n<channel|>b", ["a", "b"]),
        ("mistral", "<think>\na\n</think>\nb", ["a", "b"]),
        ("mistral", "b [THINK]", ["", "b [THINK]"]),
    ],
)
def test_what_else_ends_a_thought(name: str, text: str, events: list[str]) -> None:
    expected = merge_events([Reasoning(events[0]), Content(events[1])])
    assert parse(name, text) == expected


CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("<|channel|>final<|message|>b<|return|>", [Content("b")]),
        ("<|channel|>analysis<|message|>a", [Reasoning("a")]),
        ("plain text, no channel", [Content("plain text, no channel")]),
        (
            f"<|channel|>analysis<|message|>a<|end|><|start|>assistant{CALL}",
            [Reasoning("a"), Content(f"<|start|>assistant{CALL}")],
        ),
        (
            f" to=functions.f{CALL[len('<|channel|>commentary to=functions.f') :]}",
            [Content(f" to=functions.f{CALL[len('<|channel|>commentary to=functions.f') :]}")],
        ),
        (
            "<|channel|>commentary<|message|>First.<|end|><|start|>assistant<|channel|>analysis"
            "<|message|>a<|start|>assistant<|channel|>final<|message|>b",
            [Content("First."), Reasoning("a"), Content("b")],
        ),
    ],
)
def test_gpt_oss(text: str, events: list[Event]) -> None:
    context = ParserContext(prompt_suffix="Hi<|end|><|start|>assistant")
    assert parse("gpt-oss", text, context) == events


def test_the_prompt_may_have_begun_the_answer() -> None:
    suffix = "Hi<|end|><|start|>assistant<|channel|>final<|message|>Well"
    context = ParserContext(prompt_suffix=suffix)
    assert parse("gpt-oss", ", hello.<|return|>", context) == [Content(", hello.")]


def test_calls_keep_their_frame_in_inkling_and_muse() -> None:
    call = "<|message_model|>f<|content_invoke_tool_json|>{}<|end_message|>"
    text = "<|content_thinking|>a<|end_message|>" + call + "<|content_model_end_sampling|>"
    assert parse("inkling", text) == [Reasoning("a"), Content(call)]
    call = "<|start|>assistant to=s.f<|message|><atem:function_calls>x<|eom|>"
    assert parse("muse", "to=self<|message|>a<|eom|>" + call) == [Reasoning("a"), Content(call)]


class TestIdentity(ReasoningParserContract):
    parser = IdentityReasoningParser

    def render(self, reasoning: str, content: str) -> str:
        return content

    test_thought_and_answer_come_apart = None  # type: ignore[assignment]


def test_append_think_gives_back_the_tag_that_the_template_wrote() -> None:
    text = "Hm.</think>Hello."
    for name in ("minimax_m2_append_think", "minimax-append-think"):
        assert parse(name, text) == [Content("<think>" + text)]
    assert MiniMaxM2AppendThinkReasoningParser(ParserContext()).finish() == []


# --- response_template ---------------------------------------------------------------------

RESPONSE_TEMPLATE = {
    "version": 1,
    "start_anchor": "<|assistant|>",
    "fields": {
        "thinking": {"open": "<thought>\n", "close": ["</thought>", "</thoughts>"]},
        "content": {"open_pattern": r"<say>\s*", "close_pattern": r"\n?</say>"},
    },
}


TEMPLATED = CheckpointText(response_template=RESPONSE_TEMPLATE)


def templated(template: dict[str, object]) -> ParserContext:
    return ParserContext(checkpoint=CheckpointText(response_template=template))


class TestHf(ReasoningParserContract):
    parser = HfReasoningParser
    contexts = (templated(RESPONSE_TEMPLATE),)
    tags = ("<thought>", "</thought>", "</thoughts>", "<say>", "</say>")

    def render(self, reasoning: str, content: str) -> str:
        return f"<thought>\n{reasoning}</thought><say>\n{content}\n</say>"


def test_hf_says_what_it_cannot_follow() -> None:
    with pytest.raises(ConfigError, match="needs a response_template"):
        HfReasoningParser(ParserContext())
    fields = {"reasoning_content": {"open_pattern": r"<t(\d+)>", "close": "</t>"}}
    with pytest.raises(ConfigError, match="cannot follow"):
        HfReasoningParser(templated({"fields": fields}))
    with pytest.raises(ConfigError, match="no reasoning field"):
        HfReasoningParser(templated({"fields": {"content": {}}}))


# --- auto ----------------------------------------------------------------------------------

QWEN = "{{ '<think>\\n' }}{{ message.content.split('</think>')[-1] }}"


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        (CheckpointText(chat_template=QWEN, response_template=RESPONSE_TEMPLATE), "hf"),
        (CheckpointText(QWEN, {"fields": {"content": {}}}), "qwen3"),
        (CheckpointText(QWEN + "<answer>"), "hunyuan_a13b"),
        (CheckpointText("<\uff5cAssistant\uff5c>{{ 'x'.split('</think>') }}"), "deepseek_r1"),
        (CheckpointText("<\uff5cAssistant\uff5c></think>{% if thinking %}"), "deepseek_v3"),
        (CheckpointText("<|channel|>analysis"), "openai_gptoss"),
        (CheckpointText("]~b]ai\n<think>\n"), "minimax_m2"),
        (CheckpointText("{{ messages }}", None, ("Qwen3ForCausalLM",)), None),
        (CheckpointText(None, None, ("GptOssForCausalLM",)), "openai_gptoss"),
        (CheckpointText(None, None, ("LlamaForCausalLM",)), None),
    ],
)
def test_auto_goes_by_response_template_chat_template_architecture(
    checkpoint: CheckpointText, name: str | None
) -> None:
    assert AutoReasoningParser.choose(checkpoint) == name


# --- special tokens ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("qwen3", {"<think>", "</think>"}),
        ("gemma4", {"<|channel>", "<channel|>", "<|tool_call>"}),
        ("mistral", {"[THINK]", "[/THINK]"}),
        ("kimi_k3", {"<|open|>", "<|close|>", "<|sep|>"}),
        ("gpt_oss", {"<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>"}),
    ],
)
def test_the_detokenizer_is_told_which_special_tokens_the_format_needs(
    name: str, tokens: set[str]
) -> None:
    parser = Registry().load("reasoning_parsers", name)
    assert tokens <= set(parser.markers_of(CheckpointText()))


def test_the_checkpoint_says_which_special_tokens_there_are() -> None:
    assert set(HfReasoningParser.markers_of(TEMPLATED)) == {*TestHf.tags}
    suffixed = CheckpointText("{{ '<think:6124c78e>' }}")
    parser = Registry().load("reasoning_parsers", "hy_v4")
    assert set(parser.markers_of(suffixed)) == {"<think:6124c78e>", "</think:6124c78e>"}
