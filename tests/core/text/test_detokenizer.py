"""The oracle is the tokenizers library's own decode of the whole sequence."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import pytest

from jackfield.contracts.text import Tokenizer
from jackfield.text.detokenizer import Detokenizer

ROUNDS = 300


def pieces_of(
    detokenizer: Detokenizer, ids: Sequence[int], rng: random.Random, longest: int = 4
) -> list[str]:
    pieces = []
    at = 0
    while at < len(ids):
        size = rng.randint(1, longest)
        pieces.append(detokenizer.feed(ids[at : at + size]))
        at += size
    return [*pieces, detokenizer.finish()]


@pytest.mark.parametrize("skip", [True, False])
def test_any_split_gives_the_whole_decode(any_tokenizer: Tokenizer, skip: bool) -> None:
    rng = random.Random(1)
    for _ in range(ROUNDS):
        ids = [rng.randrange(any_tokenizer.vocab_size + 2) for _ in range(rng.randint(1, 30))]
        detokenizer = Detokenizer(any_tokenizer, [], skip_special_tokens=skip)
        text = "".join(pieces_of(detokenizer, ids, rng))
        assert text == any_tokenizer.decode(ids, skip_special_tokens=skip), ids


@pytest.mark.parametrize("skip", [True, False])
def test_output_is_the_decode_behind_the_prompt(any_tokenizer: Tokenizer, skip: bool) -> None:
    rng = random.Random(2)
    # A word ends the prompt: prompts that end within a character have tests of their own.
    ids = range(any_tokenizer.vocab_size)
    word = [next(id for id in ids if any_tokenizer.token_text(id) == "Hello")]
    for _ in range(ROUNDS):
        prompt = [rng.randrange(any_tokenizer.vocab_size) for _ in range(rng.randint(0, 12))]
        prompt += word
        before = any_tokenizer.decode(prompt, skip_special_tokens=skip)
        output = [rng.randrange(any_tokenizer.vocab_size) for _ in range(rng.randint(1, 20))]
        whole = any_tokenizer.decode(prompt + output, skip_special_tokens=skip)
        detokenizer = Detokenizer(any_tokenizer, prompt, skip_special_tokens=skip)
        text = "".join(pieces_of(detokenizer, output, rng))
        assert before + text == whole, (prompt, output)


def test_special_tokens_that_are_kept_stand_in_the_text(any_tokenizer: Tokenizer) -> None:
    rng = random.Random(3)
    special = sorted(any_tokenizer.special_ids)
    kept = frozenset(special[:1])
    left_out = any_tokenizer.special_ids - kept
    for _ in range(ROUNDS):
        ids = [rng.randrange(any_tokenizer.vocab_size) for _ in range(rng.randint(1, 20))]
        ids[rng.randrange(len(ids))] = rng.choice(special)
        detokenizer = Detokenizer(any_tokenizer, [], skip_special_tokens=True, kept=kept)
        text = "".join(pieces_of(detokenizer, ids, rng))
        assert text == any_tokenizer.decode([id for id in ids if id not in left_out]), ids


@pytest.mark.parametrize("name", ["bpe_tokenizer", "llama2_tokenizer"])
def test_no_piece_shows_part_of_a_character(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    text = "na\u00efve \u4f60\u597d \U0001f600\U0001f468\u200d\U0001f469 caf\u00e9 \u0b95\u0bcd end"
    ids = tokenizer.encode(text, add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer, tokenizer.encode("Hello"), skip_special_tokens=True)
    pieces = [detokenizer.feed([id]) for id in ids] + [detokenizer.finish()]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("name", ["bpe_tokenizer", "llama2_tokenizer"])
def test_output_completes_a_character_that_the_prompt_began(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    ids = tokenizer.encode("Hello\U0001f680!", add_special_tokens=False)
    start = tokenizer.encode("Hello", add_special_tokens=False)
    assert ids[: len(start)] == start
    for cut in range(len(start) + 1, len(ids) - 1):
        detokenizer = Detokenizer(tokenizer, ids[:cut], skip_special_tokens=True)
        text = "".join(detokenizer.feed([id]) for id in ids[cut:]) + detokenizer.finish()
        assert text == "\U0001f680!"


def test_incomplete_character_at_the_end_gives_one_replacement(bpe_tokenizer: Tokenizer) -> None:
    ids = bpe_tokenizer.encode("a\U0001f680", add_special_tokens=False)[:-1]
    detokenizer = Detokenizer(bpe_tokenizer, [0], skip_special_tokens=True)
    assert "".join(detokenizer.feed([id]) for id in ids) == "a"
    assert detokenizer.finish() == "\ufffd"


def test_without_bytes_of_tokens_nothing_is_lost_wherever_the_output_ends(
    bpe_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(bpe_tokenizer), "token_bytes", lambda self, token_id: None)
    # A copy: what texts tokens have is kept for each tokenizer.
    tokenizer = copy.copy(bpe_tokenizer)
    prompt = tokenizer.encode("Hello", add_special_tokens=False)
    output = tokenizer.encode(" na\u00efve \U0001f680 \u0b95\u0bcd.", add_special_tokens=False)
    for cut in range(len(output) + 1):
        detokenizer = Detokenizer(tokenizer, prompt)
        pieces = [detokenizer.feed([id]) for id in output[:cut]]
        assert not any("\ufffd" in piece for piece in pieces)
        text = "".join([*pieces, detokenizer.finish()])
        assert "Hello" + text == tokenizer.decode(prompt + output[:cut])


def test_first_word_keeps_its_space_only_behind_text(llama2_tokenizer: Tokenizer) -> None:
    word = llama2_tokenizer.encode(" Hello", add_special_tokens=False)
    begin = llama2_tokenizer.encode("world", add_special_tokens=False)
    bos = sorted(llama2_tokenizer.special_ids)[0]
    for prompt, expected in ((begin, " Hello"), ([bos], "Hello"), ([], "Hello")):
        detokenizer = Detokenizer(llama2_tokenizer, prompt, skip_special_tokens=True)
        assert detokenizer.feed(word) + detokenizer.finish() == expected


def test_special_tokens_in_a_row_can_be_written_without_spaces() -> None:
    from tokenizers import AddedToken, Tokenizer, models

    from jackfield_tokenizers.fast import FastTokenizer

    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "Hi": 1}, unk_token="[UNK]"))
    backend.add_special_tokens([AddedToken("<a>", special=True), AddedToken("<b>", special=True)])
    tokenizer = FastTokenizer(backend, {}, None)
    ids = [1, 2, 3, 2, 1]
    for spaces, expected in ((True, "Hi <a> <b> <a> Hi"), (False, "Hi <a><b><a> Hi")):
        detokenizer = Detokenizer(
            tokenizer, [], skip_special_tokens=False, spaces_between_special_tokens=spaces
        )
        assert "".join(detokenizer.feed([id]) for id in ids) + detokenizer.finish() == expected
