"""The tokenizer of jackfield-mini: byte-level BPE in which a word is the same tokens everywhere.

A small model has to copy names out of a sentence into JSON. So merges are learned on words
without the space before them; a space joins only as a last merge, and only to whole common
words. ``" zorbl"`` and ``"zorbl`` thus end in the same tokens. Digits stand alone.

    python -m tools.mini.tokenizer
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from tools.mini import words
from tools.mini.example import CHECKPOINT
from tools.mini.mixture import texts
from tools.mini.source import Source

VOCAB_SIZE = 5120
NUM_SPACED = 1000
"""Tokens that begin with a space."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
_REST = r"\p{N}|[^\s\p{L}\p{N}]+|\s+"
_SPACED = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SHORT_WORDS = frozenset(
    "a i is in to of it my do or as at be by we me if on no so an am he the and for are you not "
    "has have with can was how who why all any its one two did get set use".split()
)
_SPACE = "\u0120"
"""How byte-level BPE writes a space."""


def train(num_texts: int = 40_000) -> Tokenizer:
    """Learns the vocabulary from the training data and this repository's documentation."""
    read = list(_texts(num_texts))
    plain = Tokenizer(BPE())
    plain.pre_tokenizer = _pre_tokenizer(rf"\p{{L}}+|{_REST}")
    size = VOCAB_SIZE - NUM_SPACED - len(SPECIAL) - len(TAGS)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    plain.train_from_iterator(read, trainer)
    model = json.loads(plain.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    merges = [tuple(pair) for pair in model["merges"]]
    for word in _spaced(read, vocab):
        vocab[_SPACE + word] = len(vocab)
        merges.append((_SPACE, word))
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer(_SPACED)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in SPECIAL]
    )
    # Not special: parsers have to see them where special tokens are skipped.
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in TAGS])
    return tokenizer


def _pre_tokenizer(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _texts(count: int) -> Iterator[str]:
    for prompt, completion in islice(texts(Source("tokenizer")), count):
        text = prompt + completion
        for token in (*SPECIAL, *TAGS):
            text = text.replace(token, "\n")
        yield text
    for page in (Path(__file__).parents[2] / "docs").glob("*.md"):
        yield from [page.read_text(encoding="utf-8")] * 20
    listed = [*words.NOUNS, *words.ADJECTIVES, *words.NAMES, *words.SURNAMES, *words.CITIES]
    yield from [" ".join(listed)] * 20


def _spaced(read: list[str], vocab: dict[str, int]) -> list[str]:
    """The commonest words and signs that are one token and follow a space."""
    counts: Counter[str] = Counter()
    split = _pre_tokenizer(_SPACED)
    for text in read:
        counts.update(piece for piece, _ in split.pre_tokenize_str(text) if piece[0] == _SPACE)
    common = [piece[1:] for piece, _ in counts.most_common() if piece[1:] in vocab]
    return [word for word in common if _may_be_spaced(word)][:NUM_SPACED]


def _may_be_spaced(word: str) -> bool:
    """Not the short beginnings of other words."""
    return not word.isalpha() or len(word) > 3 or word.lower() in _SHORT_WORDS


def write(tokenizer: Tokenizer, directory: Path) -> None:
    """tokenizer.json and its configuration; the chat template is a file of its own."""
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    write(train(), CHECKPOINT)
