"""The beginning of texts, against transformers' truncation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.core.text.conftest import byte_level, word_piece
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from jackfield.text.prompt import PromptBuilder
from jackfield_tokenizers.fast import FastTokenizer

# BERT's, RoBERTa's, Qwen3-Embedding's, and none.
FRAMES = {
    "both": ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1"),
    "twice": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    "end": ("$A </s>", "$A </s> $B </s>"),
    "none": ("$A", "$A $B"),
}
TEXTS = ("Hello world", "the stop a b " * 9, "a", "")


def framed(frame: str, source: FastTokenizer) -> tuple[PromptBuilder, PreTrainedTokenizerFast]:
    """A builder of pooled prompts, and transformers' tokenizer of the same file."""
    backend = source._backend
    single, pair = FRAMES[frame]
    named = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single, pair, named)
    builder = PromptBuilder(
        source,
        None,
        max_model_len=64,
        logits_width=source.vocab_size,
        eos_token_ids=(),
        max_logprobs=0,
        generates=False,
    )
    return builder, PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("make", [byte_level, word_piece])
def test_the_beginning_is_kept_within_its_frame(
    frame: str, make: Callable[[], FastTokenizer]
) -> None:
    builder, theirs = framed(frame, make())
    for text in TEXTS[:3]:
        for keep in (5, 6, 11, 64):
            expected = theirs(text, truncation=True, max_length=keep)["input_ids"]
            assert list(builder.from_text(text, truncate_prompt_tokens=keep)) == expected
    long = TEXTS[1] * 400
    expected = theirs(long, truncation=True, max_length=64)["input_ids"]
    assert list(builder.from_text(long, truncate_prompt_tokens=-1)) == expected


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("make", [byte_level, word_piece])
def test_the_longer_text_of_a_pair_is_cut_first(
    frame: str, make: Callable[[], FastTokenizer]
) -> None:
    builder, theirs = framed(frame, make())
    for text in TEXTS[:3]:
        for other in TEXTS[:3]:
            for keep in (7, 8, 13, 40, 64):
                expected = theirs(text, other, truncation=True, max_length=keep)["input_ids"]
                made = builder.from_pair(text, other, truncate_prompt_tokens=keep)
                assert list(made) == expected, (text, other, keep)


def test_of_ids_the_first_are_kept_and_for_text_the_last() -> None:
    builder, _ = framed("both", byte_level())
    assert builder.from_ids((5, 6, 7), truncate_prompt_tokens=2) == (5, 6)
    whole = builder.from_text("Hello world")
    generating = replace(builder, generates=True)
    assert generating.from_text("Hello world", truncate_prompt_tokens=2) == whole[-2:]
    assert generating.from_ids((5, 6, 7), truncate_prompt_tokens=2) == (6, 7)


def test_where_only_the_frame_has_room_its_beginning_is_kept() -> None:
    builder, _ = framed("both", byte_level())
    whole = builder.from_text("Hello world")
    assert builder.from_text("Hello world", truncate_prompt_tokens=2) == whole[:2]
    pair = builder.from_pair("a", "b")
    assert builder.from_pair("a", "b", truncate_prompt_tokens=3) == pair[:3]
