from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jackfield.contracts.sampling import MAX_SEED, SamplingParams
from jackfield.errors import RequestError
from jackfield.text.chat_template import ChatTemplate
from jackfield.text.prompt import COUNTED_CHARACTERS, PromptBuilder
from jackfield_tokenizers.fast import FastTokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }}{{ c.function.arguments | tojson }}]"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARTS = (
    "{% for m in messages %}{{ m.role }}:{% for p in m.content %}[{{ p.text }}]{% endfor %}"
    "{% endfor %}"
)


@pytest.fixture
def builder(bpe_tokenizer: FastTokenizer) -> PromptBuilder:
    return PromptBuilder(
        bpe_tokenizer,
        ChatTemplate(TEMPLATE, bpe_tokenizer.special_tokens),
        max_model_len=64,
        logits_width=bpe_tokenizer.vocab_size,
        eos_token_ids=(7, 9),
        max_logprobs=20,
    )


def refused(call: Any, *args: Any, **kwargs: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call(*args, **kwargs)
    assert caught.value.status == 400
    return caught.value


# --- prompts ---------------------------------------------------------------------------


def test_text_becomes_the_tokenizers_ids(
    builder: PromptBuilder, bpe_tokenizer: FastTokenizer
) -> None:
    assert builder.from_text("Hello world") == tuple(bpe_tokenizer.encode("Hello world"))


def test_a_pair_is_joined_by_the_tokenizer_and_each_text_is_named(
    builder: PromptBuilder, bpe_tokenizer: FastTokenizer
) -> None:
    joined = tuple(bpe_tokenizer.encode_pair("Hello", " world the"))
    assert builder.from_pair("Hello", " world the") == joined
    for texts, name in ((("a\ud800", "b"), "query"), (("a", "b\ud800"), "documents")):
        error = refused(builder.from_pair, *texts, params=("query", "documents"))
        assert error.param == name


def test_a_tokenizer_that_joins_no_pairs_has_one_text_behind_the_other(
    builder: PromptBuilder, bpe_tokenizer: FastTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(FastTokenizer, "encode_pair")
    expected = bpe_tokenizer.encode("Hello world")
    assert builder.from_pair("Hello", " world") == tuple(expected)


def test_ids_pass_if_they_fit(builder: PromptBuilder) -> None:
    assert builder.from_ids([0, 5, builder.logits_width - 1]) == (0, 5, builder.logits_width - 1)


@pytest.mark.parametrize(
    "ids", [[], [-1], [10**6], [True], [1.0], ["a"], [1, None], "abc", [2**70]]
)
def test_bad_ids_name_the_prompt(builder: PromptBuilder, ids: Any) -> None:
    assert refused(builder.from_ids, ids).param == "prompt"


def test_half_a_surrogate_pair_and_empty_text_are_refused(builder: PromptBuilder) -> None:
    for text in ("", "a\ud800"):
        assert refused(builder.from_text, text).param == "prompt"


def test_a_prompt_must_leave_room_for_one_token(builder: PromptBuilder) -> None:
    assert len(builder.from_ids([1] * 63)) == 63
    error = refused(builder.from_ids, [1] * 64)
    assert error.code == "context_length_exceeded" and error.param == "prompt"
    assert "64 tokens" in error.message and "resulted in 64 tokens" in error.message


def test_text_far_too_long_is_refused_before_it_is_tokenized(builder: PromptBuilder) -> None:
    class Untouched(FastTokenizer):
        def __init__(self) -> None: ...

        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            raise AssertionError("tokenized")

    builder = replace(builder, tokenizer=Untouched())
    error = refused(builder.from_text, "a" * (16 * 64 + 1))
    assert error.code == "context_length_exceeded" and "1025 characters" in error.message


def test_truncation_keeps_the_end(builder: PromptBuilder) -> None:
    text = "a b " * 60
    ids = tuple(builder.tokenizer.encode(text)) if builder.tokenizer else ()
    assert len(ids) > 64
    calls: list[Any] = [(builder.from_text, text), (builder.from_ids, ids)]
    for build, prompt in calls:
        assert build(prompt, truncate_prompt_tokens=5) == ids[-5:]
        assert build(prompt, truncate_prompt_tokens=-1) == ids[-63:]
        for bad in (0, -2, 65, True, 1.5):
            error = refused(build, prompt, truncate_prompt_tokens=bad)
            assert error.param == "truncate_prompt_tokens"


def test_without_a_tokenizer_only_ids_are_taken(builder: PromptBuilder) -> None:
    builder = replace(builder, tokenizer=None)
    assert refused(builder.from_text, "a").param == "prompt"
    assert builder.from_ids([3]) == (3,)


# --- conversations ---------------------------------------------------------------------


def test_a_chat_is_rendered_and_encoded(builder: PromptBuilder) -> None:
    prompt = builder.from_chat([{"role": "user", "content": "Hello"}])
    assert prompt.text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.token_ids == builder.from_text(prompt.text, add_special_tokens=False)


def test_text_parts_are_joined_where_the_template_wants_a_string(builder: PromptBuilder) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    prompt = builder.from_chat([{"role": "user", "content": parts}], add_generation_prompt=False)
    assert prompt.text == "<|im_start|>user\na\nb<|im_end|>\n"


def test_strings_become_parts_where_the_template_wants_parts(builder: PromptBuilder) -> None:
    builder = replace(builder, template=ChatTemplate(PARTS))
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, "c"]},
    ]
    assert builder.from_chat(messages).text == "user:[a]user:[b][c]"


def test_arguments_reach_the_template_as_objects(builder: PromptBuilder) -> None:
    call: dict[str, Any] = {
        "id": "1",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a":"\u00e9"}'},
    }
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]
    assert '[f{"a": "\u00e9"}]' in builder.from_chat(messages).text
    call["function"]["arguments"] = ""
    assert "[f{}]" in builder.from_chat(messages).text


def test_developer_is_system_unless_the_template_knows_it(builder: PromptBuilder) -> None:
    messages: list[dict[str, Any]] = [{"role": "developer", "content": "x"}]
    assert builder.from_chat(messages).text.startswith("<|im_start|>system\n")
    builder = replace(builder, template=ChatTemplate("{# developer #}{{ messages[0].role }}"))
    assert builder.from_chat(messages).text == "developer"


# As Qwen3.5 has it.
SYSTEM_FIRST = (
    "{% for m in messages %}"
    "{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
    "[{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}]{% endfor %}"
)
LATER_SYSTEM: list[dict[str, Any]] = [
    {"role": "system", "content": "a"},
    {"role": "developer", "content": [{"type": "text", "text": "b"}]},
    {"role": "user", "content": "c"},
    {"role": "system", "content": "d"},
]


def test_system_messages_that_a_template_refuses_are_one_or_the_users(
    builder: PromptBuilder,
) -> None:
    """Agents tell their models things between the user's messages."""
    builder = replace(builder, template=ChatTemplate(SYSTEM_FIRST))
    assert builder.from_chat(LATER_SYSTEM).text == "[system:a\n\nb][user:c][user:d]"
    assert builder.from_chat(LATER_SYSTEM[2:]).text == "[user:c][user:d]"
    free = replace(builder, template=ChatTemplate(SYSTEM_FIRST.replace("not loop.first", "0")))
    assert free.from_chat(LATER_SYSTEM).text == "[system:a][system:b][user:c][system:d]"


def test_a_template_that_refuses_more_than_later_system_messages_says_what(
    builder: PromptBuilder,
) -> None:
    builder = replace(builder, template=ChatTemplate("{{ raise_exception('never') }}"))
    assert refused(builder.from_chat, LATER_SYSTEM).message == "never"


GPT_OSS = """
{%- for message in messages -%}
  {%- if message.tool_calls -%}
    {%- if message.content and message.thinking -%}
      {{- raise_exception("Cannot pass both content and thinking!") -}}
    {%- endif -%}
    [analysis:{{ message.content or message.thinking }}]
  {%- else -%}
    [{{ message.thinking }}][{{ message.content }}]
  {%- endif -%}
{%- endfor -%}
"""


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking"])
def test_reasoning_and_content_of_a_call_are_one_text_where_a_template_refuses_two(
    builder: PromptBuilder, name: str
) -> None:
    builder = replace(builder, template=ChatTemplate(GPT_OSS), max_model_len=256)
    both = {"content": "I will look.", name: "Where is it?"}
    messages: list[dict[str, Any]] = [
        {**calling(), **both},
        {**calling(), name: "Hm."},
        {"role": "assistant", **both},
    ]
    assert builder.from_chat(messages).text == (
        "[analysis:Where is it?\nI will look.][analysis:Hm.][Where is it?][I will look.]"
    )


USER = {"role": "user", "content": "x"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


def calling(**function: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": "f", **function}}]}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([USER, {"role": "user", "content": 7}], "messages[1].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": ["a", IMAGE]}], "messages[0].content[1]"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0]"),
        ([calling(arguments="{")], "messages[0].tool_calls[0].function.arguments"),
        ([calling(arguments="[1]")], "messages[0].tool_calls[0].function.arguments"),
        ([calling(arguments='{"a": NaN}')], "messages[0].tool_calls[0].function.arguments"),
        ([calling(name=None)], "messages[0].tool_calls[0].function.name"),
    ],
)
def test_bad_messages_are_named(builder: PromptBuilder, messages: Any, param: str) -> None:
    assert refused(builder.from_chat, messages).param == param


def test_a_message_that_calls_tools_is_not_continued(builder: PromptBuilder) -> None:
    # The template writes the calls behind the text, where they would be cut off.
    options: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
    messages = [USER, {**calling(), "content": "I will look."}]
    assert refused(builder.from_chat, messages, **options).param == "continue_final_message"


def test_a_long_conversation_names_the_messages(builder: PromptBuilder) -> None:
    error = refused(builder.from_chat, [{"role": "user", "content": "a b " * 50}])
    assert error.param == "messages" and error.code == "context_length_exceeded"


def test_prompts_that_are_only_counted_may_be_longer_than_the_context(
    builder: PromptBuilder,
) -> None:
    counting = builder.counting()
    assert len(counting.from_chat([{"role": "user", "content": "a b " * 5000}]).token_ids) > 5000
    long = [{"role": "user", "content": "a" * COUNTED_CHARACTERS}]
    assert refused(counting.from_chat, long).code == "context_length_exceeded"


def test_a_requests_own_template_is_used_and_checked(builder: PromptBuilder) -> None:
    assert (
        builder.from_chat(
            [USER], chat_template="{{ bos_token }}{{ y }}", template_kwargs={"y": 1}
        ).text
        == "<s>1"
    )
    assert refused(builder.from_chat, [USER], chat_template="{% if %}").param == "chat_template"
    without = replace(builder, template=None)
    assert "--chat-template" in refused(without.from_chat, [USER]).message


# --- sampling --------------------------------------------------------------------------


def test_max_tokens_is_what_the_context_has_left(builder: PromptBuilder) -> None:
    assert builder.resolve(SamplingParams(max_tokens=None), 60)[1] == 4
    assert builder.resolve(SamplingParams(max_tokens=4), 60)[1] == 4
    error = refused(builder.resolve, SamplingParams(max_tokens=5), 60)
    assert error.param == "max_tokens" and error.code == "context_length_exceeded"
    assert "65 tokens (60 in the prompt, 5 for the completion)" in error.message
    assert (
        refused(builder.resolve, SamplingParams(max_tokens=None, min_tokens=5), 60).param
        == "min_tokens"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stop_token_ids", [10**6]),
        ("stop_token_ids", [-1]),
        ("logit_bias", {10**6: 1.0}),
        ("logit_bias", {-1: 1.0}),
        ("allowed_token_ids", [1, 10**6]),
        ("allowed_token_ids", [True]),
        ("logprobs", 21),
        ("prompt_logprobs", 21),
        ("prompt_logprobs", -1),
    ],
)
def test_values_beyond_the_model_are_named(builder: PromptBuilder, field: str, value: Any) -> None:
    assert refused(builder.resolve, SamplingParams(**{field: value}), 3).param == field


def test_all_logprobs_are_those_of_the_vocabulary(builder: PromptBuilder) -> None:
    builder = replace(builder, max_logprobs=2**31 - 1)
    sampling, _ = builder.resolve(SamplingParams(logprobs=-1, prompt_logprobs=-1), 3)
    assert sampling.logprobs == sampling.prompt_logprobs == builder.logits_width


def test_stop_strings_need_text(builder: PromptBuilder) -> None:
    params = SamplingParams(stop="x", detokenize=False)
    assert refused(builder.resolve, params, 3).param == "stop"
    assert (
        refused(replace(builder, tokenizer=None).resolve, SamplingParams(stop="x"), 3).param
        == "stop"
    )


def test_end_ids_follow_ignore_eos_and_min_tokens(builder: PromptBuilder) -> None:
    def ends(**values: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        sampling, _ = builder.resolve(SamplingParams(stop_token_ids=[5, 7], **values), 3)
        return sampling.stop_token_ids, sampling.min_tokens_ids

    # The tokenizer's end of sequence beside the configuration's.
    own = None if builder.tokenizer is None else builder.tokenizer.eos_token_id
    assert own is not None
    assert ends() == ((7, 9, own, 5), ())
    assert ends(ignore_eos=True) == ((5, 7), ())
    assert ends(min_tokens=2) == ((7, 9, own, 5), (7, 9, own, 5))
    builder = replace(builder, logits_width=own)
    assert ends() == ((7, 9, 5), ()), "an id that the model has no logit of"


def test_a_seed_is_kept_and_its_lack_filled_at_random(builder: PromptBuilder) -> None:
    seeds = {builder.resolve(SamplingParams(), 3)[0].seed for _ in range(20)}
    assert len(seeds) == 20 and all(0 <= seed <= MAX_SEED for seed in seeds)
    assert builder.resolve(SamplingParams(seed=42), 3)[0].seed == 42
    assert builder.resolve(SamplingParams(seed=-1), 3)[0].seed >= 0


def test_tiny_temperature_is_greedy_and_top_k_of_everything_is_off(builder: PromptBuilder) -> None:
    sampling, _ = builder.resolve(SamplingParams(temperature=1e-9, top_k=10**6), 3)
    assert sampling.greedy and sampling.top_k == 0
    assert builder.resolve(SamplingParams(top_k=-1), 3)[0].top_k == 0


def test_bad_words_are_taken_with_and_without_a_space(builder: PromptBuilder) -> None:
    assert builder.tokenizer is not None
    encode = builder.tokenizer.encode
    sampling, _ = builder.resolve(SamplingParams(bad_words=["Hello"]), 3)
    assert sampling.bad_words == (
        tuple(encode("Hello", add_special_tokens=False)),
        tuple(encode(" Hello", add_special_tokens=False)),
    )
    error = refused(replace(builder, tokenizer=None).resolve, SamplingParams(bad_words=["x"]), 3)
    assert error.param == "bad_words"
