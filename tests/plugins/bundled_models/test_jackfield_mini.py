"""The checkpoint of jackfield-mini against transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jackfield import checkpoint
from jackfield.testing import BundledModelContract
from jackfield.text.chat_template import ChatTemplate
from jackfield_bundled_models.jackfield_mini import JackfieldMini
from jackfield_tokenizers.auto import AutoTokenizerMode

DIRECTORY = JackfieldMini().directory()
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Größe <b>&</b> 'Wetter'",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Riga"}'}}
CONVERSATIONS: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|im_end|>"}],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nOh\n</think>\n\nHello"},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    ],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "So", "reasoning_content": "Hm", "tool_calls": [CALL]},
        {"role": "tool", "content": "1"},
    ],
)


class TestContract(BundledModelContract):
    model = JackfieldMini


@pytest.fixture(scope="module")
def theirs() -> Any:
    return AutoTokenizer.from_pretrained(DIRECTORY)


def test_it_is_small() -> None:
    weights = DIRECTORY / "model.safetensors"
    assert weights.stat().st_size <= 16 << 20
    header = checkpoint.read_safetensors_header(weights)
    assert {entry.dtype for entry in header.values()} == {"BF16"}


def test_tokens_are_those_of_transformers(theirs: Any) -> None:
    ours = AutoTokenizerMode().load(str(DIRECTORY))
    for text in (
        'What is 42 + 7? {"a_b": "Zorbl"}\n\n',
        "naïve 日本 \U0001f600  x",
        *SPECIAL,
        *TAGS,
    ):
        ids = ours.encode(text)
        assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids) == text


def test_tags_survive_where_special_tokens_are_skipped() -> None:
    ours = AutoTokenizerMode().load(str(DIRECTORY))
    for token in SPECIAL:
        assert ours.decode(ours.encode(token), skip_special_tokens=True) == ""
    for tag in TAGS:
        (only,) = ours.encode(tag)
        assert ours.decode([only], skip_special_tokens=True) == tag


@pytest.mark.parametrize("word", ["Zorbl", "krealtskaint", "qx", "Übung"])
def test_a_rare_word_is_the_same_tokens_in_a_sentence_and_in_json(word: str) -> None:
    ours = AutoTokenizerMode().load(str(DIRECTORY))
    tokens = ours.encode(word)
    for text in (f"in {word} today", f'{{"city": "{word}"}}', f"{word}: 1"):
        ids = ours.encode(text)
        assert any(ids[i : i + len(tokens)] == tokens for i in range(len(ids)))


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
@pytest.mark.parametrize("tools", [[], [TOOL]], ids=["no tools", "tools"])
@pytest.mark.parametrize("thinking", [True, False])
def test_prompts_are_those_of_transformers(
    theirs: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]], thinking: bool
) -> None:
    template = AutoTokenizerMode().load(str(DIRECTORY)).chat_template
    assert template is not None
    ours = ChatTemplate(template).render(
        messages, tools=tools, template_kwargs={"enable_thinking": thinking}
    )
    assert ours == theirs.apply_chat_template(
        messages,
        tools=tools or None,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )


def test_transformers_answers_with_it(theirs: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32)
    prompt = theirs.apply_chat_template(
        [{"role": "user", "content": "What is 47 + 38?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    made = model.generate(**prompt, max_new_tokens=96, do_sample=False, temperature=None,
                          top_p=None, top_k=None)  # fmt: skip
    text = theirs.decode(made[0, prompt["input_ids"].shape[1] :])
    assert text.endswith("47 + 38 = 85.<|im_end|>")
