"""Small tokenizers of every kind of decoder, built with the tokenizers library itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from jackfield_tokenizers.fast import FastTokenizer

WORDS = [
    "Hello", "world", "the", "caf\u00e9", "\u4f60\u597d", "n't", "?", ".", "a", "b", "x1", "{", "}",
    "stop", "\n", "  ", "\u0131", "\U0001f600",
]  # fmt: skip
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def _with_added(backend: Tokenizer) -> FastTokenizer:
    backend.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    backend.add_tokens([AddedToken("<tool_call>", special=False)])
    return FastTokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"}, None)


def byte_level() -> FastTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(alphabet)}
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merges: list[tuple[str, str]] = []
    for word in [*(" " + word for word in WORDS), *WORDS]:
        (encoded, _), *_ = split.pre_tokenize_str(word)
        for end in range(2, len(encoded) + 1):
            if encoded[:end] not in vocab:
                vocab[encoded[:end]] = len(vocab)
                merges.append((encoded[: end - 1], encoded[end - 1]))
    backend = Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _with_added(backend)


def _sentencepiece_vocab() -> list[str]:
    vocab = [f"<0x{byte:02X}>" for byte in range(256)]
    for word in WORDS:
        vocab += [token for token in (word, "\u2581" + word) if token not in vocab]
    return [*vocab, "\u2581", "\u2581\u2581"]


def _sentencepiece(steps: list[decoders.Decoder]) -> FastTokenizer:
    vocab = {token: index for index, token in enumerate(_sentencepiece_vocab())}
    merges: list[tuple[str, str]] = []
    for word in list(vocab)[256:]:
        if word.isascii() or word[0] == "\u2581":
            for end in range(1, len(word) + 1):
                if vocab.setdefault(word[:end], len(vocab)) and end > 1:
                    vocab.setdefault(word[end - 1], len(vocab))
                    merges.append((word[: end - 1], word[end - 1]))
    backend = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Sequence(steps)
    return _with_added(backend)


def llama2() -> FastTokenizer:
    return _sentencepiece(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )


def gemma() -> FastTokenizer:
    return _sentencepiece(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )


def metaspace() -> FastTokenizer:
    pieces = [(token, -float(index)) for index, token in enumerate(_sentencepiece_vocab())]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.decoder = decoders.Metaspace()
    return _with_added(backend)


def word_piece() -> FastTokenizer:
    vocab = {token: index for index, token in enumerate(["[UNK]", "##s", "##ing", *WORDS])}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    return _with_added(backend)


def no_decoder() -> FastTokenizer:
    vocab = {token: index for index, token in enumerate(["[UNK]", *WORDS])}
    return _with_added(Tokenizer(models.WordLevel(vocab, unk_token="[UNK]")))


MAKERS: dict[str, Callable[[], FastTokenizer]] = {
    maker.__name__: maker
    for maker in (byte_level, llama2, gemma, metaspace, word_piece, no_decoder)
}


@pytest.fixture(scope="session", params=sorted(MAKERS))
def any_tokenizer(request: pytest.FixtureRequest) -> FastTokenizer:
    return MAKERS[request.param]()


@pytest.fixture(scope="session")
def bpe_tokenizer() -> FastTokenizer:
    return byte_level()


@pytest.fixture(scope="session")
def llama2_tokenizer() -> FastTokenizer:
    return llama2()
