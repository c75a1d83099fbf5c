"""Tokenizers in GGUF files: byte-level ones give tokenizer.json's ids, sentencepiece's those of
its rule written out; both those of the public libraries where they are installed."""

from __future__ import annotations

import importlib
import importlib.util
import io
import random
import string
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import regex  # type: ignore[import-untyped]  # transformers needs it
from tests.checkpoints import CHAT_TEMPLATE, make
from tests.gguf_files import byte_level, write
from tokenizers import Tokenizer as Library

from jackfield.contracts.text import Tokenizer
from jackfield.errors import CheckpointError
from jackfield.testing import TokenizerContract
from jackfield_tokenizers.auto import AutoTokenizerMode
from jackfield_tokenizers.gguf import GgufTokenizerMode
from jackfield_tokenizers.gguf_pieces import piece_rule

HEAD: dict[str, object] = {"general.architecture": "llama"}
SPACE = "\u2581"
LETTERS = string.ascii_letters + string.digits + string.punctuation + " \n\t\u00e9\u4f60\U0001f642"
WORDS = ("the cat", "that hat", "a banana", "attach", "cathedral", "2024", "ananas")


def texts(count: int = 200) -> list[str]:
    rng = random.Random(0)
    noise = ["".join(rng.choices(LETTERS, k=rng.randint(1, 40))) for _ in range(count)]
    return ["", " ", "Hello, world!", "  x\n\n y", "it's WE'LL", " ".join(WORDS), *noise]


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens of sentencepiece's kind with their scores and types."""
    words = " ".join(WORDS).replace(" ", SPACE)
    letters = sorted(set(words) | set(string.ascii_letters) - set("QZ") | {SPACE, ",", "."})
    merged = ["an", "at", "th", f"{SPACE}a", "the", f"{SPACE}th", f"{SPACE}the", "ana", "nan"]
    merged += ["ban", "banan", "atta", "ch", "ca", "cat", f"{SPACE}cat", "hat", SPACE * 2, "20"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "[INST]"]
    kinds = [2, 3, 3, *[6] * 256, 4]
    scores = [0.0] * len(tokens)
    # As sentencepiece numbers them: what was merged first has the highest score.
    ordered = [*merged, *letters]
    scores += [-float(number) for number in range(len(ordered))]
    return [*tokens, *ordered], scores, [*kinds, *[1] * len(ordered)]


def write_sentencepiece(directory: Path, **more: object) -> Path:
    tokens, scores, kinds = vocabulary()
    own = {
        "model": "llama",
        "tokens": tokens,
        "scores": scores,
        "token_type": kinds,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        **more,
    }
    described = {f"tokenizer.ggml.{key}": content for key, content in own.items()}
    write(directory / "model.gguf", {**HEAD, **described}, {})
    return directory / "model.gguf"


def write_byte_level(directory: Path, **more: object) -> Path:
    described = {f"tokenizer.ggml.{key}": content for key, content in more.items()}
    write(
        directory / "model.gguf", {**HEAD, **byte_level(make("LlamaForCausalLM")), **described}, {}
    )
    return directory / "model.gguf"


def load(path: Path) -> Tokenizer:
    return AutoTokenizerMode().load(str(path))


class TestByteLevel(TokenizerContract):
    mode: ClassVar[type[GgufTokenizerMode]] = GgufTokenizerMode

    def write(self, directory: Path) -> None:
        write_byte_level(directory)


class TestSentencepiece(TokenizerContract):
    mode: ClassVar[type[GgufTokenizerMode]] = GgufTokenizerMode

    def write(self, directory: Path) -> None:
        write_sentencepiece(directory)

    def test_the_bytes_of_tokens_are_the_bytes_of_the_text(self, tokenizer: Tokenizer) -> None:
        # The space before the first word is no part of the text.
        for text in self.texts:
            ids = tokenizer.encode(text, add_special_tokens=False)
            pieces = [tokenizer.token_bytes(token) or b"" for token in ids]
            assert b"".join(pieces) == (f" {text}" if text else "").encode()


def test_ids_of_byte_level_tokens_are_tokenizer_jsons(tmp_path: Path) -> None:
    tokenizer = load(write_byte_level(tmp_path))
    library = Library.from_file(str(make("LlamaForCausalLM") / "tokenizer.json"))
    for text in (*texts(), "<|im_start|>user\nhi<|im_end|>"):
        assert tokenizer.encode(text) == library.encode(text).ids
    assert tokenizer.eos_token_id == 2 and tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.special_tokens == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    assert tokenizer.chat_template == CHAT_TEMPLATE


def merged_by_score(text: str, *, prefix: bool = True) -> list[int]:
    """Sentencepiece's rule: of all neighbours that make a token, those that make the one of the
    highest score are merged, the first of equal ones; what is no token is written in bytes."""
    tokens, scores, _ = vocabulary()
    numbered = {token: number for number, token in enumerate(tokens)}
    parts = list((" " if prefix and text else "").replace(" ", SPACE) + text.replace(" ", SPACE))
    while True:
        found = [
            (-scores[numbered[left + right]], place)
            for place, (left, right) in enumerate(pairwise(parts))
            if left + right in numbered
        ]
        if not found:
            break
        _, place = min(found)
        parts = [*parts[:place], parts[place] + parts[place + 1], *parts[place + 2 :]]
    return [
        number
        for part in parts
        for number in (
            [numbered[part]]
            if part in numbered
            else [numbered[f"<0x{byte:02X}>"] for byte in part.encode()]
        )
    ]


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_of_sentencepiece_follow_from_the_scores(prefix: bool, tmp_path: Path) -> None:
    tokenizer = load(write_sentencepiece(tmp_path, add_space_prefix=prefix))
    for text in texts():
        expected = merged_by_score(text, prefix=prefix)
        assert tokenizer.encode(text, add_special_tokens=False) == expected
        assert tokenizer.encode(text) == [1, *expected]
        assert tokenizer.decode(expected) == text


def test_the_file_says_what_a_text_begins_and_ends_with(tmp_path: Path) -> None:
    plain = load(write_sentencepiece(tmp_path)).encode("cat")
    assert plain[0] == 1
    path = write_sentencepiece(tmp_path, add_bos_token=False, add_eos_token=True, longer=1)
    assert load(path).encode("cat") == [*plain[1:], 2]
    assert load(write_byte_level(tmp_path, pre="llama-bpe", bos_token_id=1)).encode("")[:1] == [1]


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt-2", "it's 123  x", ["it", "'s", " 123", " ", " x"]),
        ("llama-bpe", "IT'S 12345\n x", ["IT", "'S", " ", "123", "45", "\n", " x"]),
        ("qwen2", "it's 123", ["it", "'s", " ", "1", "2", "3"]),
        ("tekken", "HelloWorld/\n", ["Hello", "World", "/\n"]),
        ("gpt-4o", "HelloWorld's 12", ["Hello", "World's", " ", "12"]),
        ("smollm", "a 12!", ["a", " ", "1", "2", "!"]),
        ("default", "a+b 1234", ["a", "+", "b", " ", "123", "4"]),
        ("deepseek-coder", "a (b)\n12", ["a", " (", "b", ")", "\n", "1", "2"]),
    ],
)
def test_text_is_cut_by_the_named_rule(name: str, text: str, pieces: list[str]) -> None:
    rule = piece_rule(name)
    assert rule is not None
    found = [text]
    for expression in rule.expressions:
        cut = regex.compile(f"({expression})")
        found = [part for each in found for part in _isolated(cut, each)]
    assert found == pieces
    current = [text]
    for split in rule.splits():
        current = [part for each in current for part, _ in split.pre_tokenize_str(each)]
    assert current == pieces


def _isolated(cut: regex.Pattern[str], text: str) -> list[str]:
    parts, at = [], 0
    for match in cut.finditer(text):
        parts += [text[at : match.start()], match.group(0)]
        at = match.end()
    return [part for part in (*parts, text[at:]) if part]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"model": "t5"}, "of the kind 't5'"),
        ({"pre": "of-tomorrow"}, "cuts text by the rule 'of-tomorrow'"),
        ({"token_type": [1, 1]}, "512 tokens and the types of 2"),
        ({"merges": ["ab"]}, "'ab' is no merge of two tokens"),
        ({"merges": ["a \u4f60"]}, "its tokenizer is damaged"),
        ({"model": "llama", "scores": [1.0]}, "the scores of 1"),
    ],
)
def test_a_damaged_vocabulary_is_refused_in_one_line(
    more: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=said) as error:
        load(write_byte_level(tmp_path, **more))
    assert "\n" not in str(error.value) and "model.gguf" in str(error.value)


@pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None, reason="sentencepiece is not installed"
)
def test_ids_are_sentencepieces_own(tmp_path: Path) -> None:
    sentencepiece: Any = importlib.import_module("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([__doc__ or "", CHAT_TEMPLATE, *WORDS] * 9),
        model_writer=model,
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    size = range(theirs.vocab_size())
    path = write_sentencepiece(
        tmp_path,
        tokens=[theirs.id_to_piece(i) for i in size],
        scores=[theirs.get_score(i) for i in size],
        token_type=[
            2
            if theirs.is_unknown(i)
            else 3
            if theirs.is_control(i)
            else 6
            if theirs.is_byte(i)
            else 1
            for i in size
        ],
    )
    tokenizer = load(path)
    for text in texts():
        assert tokenizer.encode(text, add_special_tokens=False) == theirs.encode(text)
