"""Tokenizer mode ``gguf``: the vocabulary in a GGUF file, as the ``tokenizers`` library runs it.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Two kinds are in use by decoders:
byte-level BPE (``gpt2``), whose text is cut by one of the named rules, and sentencepiece's BPE
with bytes (``llama``), whose merges follow from the tokens' scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from jackfield.checkpoint import Gguf, gguf_file, read_chat_template, read_gguf
from jackfield.contracts.text import Tokenizer
from jackfield.errors import CheckpointError
from jackfield_tokenizers.fast import FastTokenizer
from jackfield_tokenizers.gguf_pieces import PieceRule, piece_rule

_KEY = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
_SPACE = "\u2581"  # sentencepiece writes a space so
# The format's names of special tokens (one is misspelled there), and the kernel's.
_NAMED: Mapping[str, str] = {
    "bos": "bos_token",
    "eos": "eos_token",
    "unknown": "unk_token",
    "seperator": "sep_token",
    "padding": "pad_token",
    "mask": "mask_token",
}
_SENTENCEPIECE_IDS = {"unknown": 0, "bos": 1, "eos": 2}
"""Of files that do not say them."""


class GgufTokenizerMode:
    """Loads with the ``tokenizers`` library, as ``auto`` does."""

    name: ClassVar[str] = "gguf"
    api_version: ClassVar[int] = 1

    def load(self, directory: str, *, trust_remote_code: bool = False) -> Tokenizer:
        """Reads the file; ``CheckpointError`` where it has no tokenizer that is known."""
        path = gguf_file(Path(directory))
        if path is None:
            raise CheckpointError(f"{directory} has no .gguf file; take --tokenizer-mode auto")
        vocabulary = _Vocabulary(read_gguf(path))
        try:
            backend = _backend(vocabulary)
        except CheckpointError:
            raise
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{path}: its tokenizer is damaged: {error}") from error
        return FastTokenizer(backend, vocabulary.special, read_chat_template(path, {}))


class _Vocabulary:
    """The tokens of a file, and which of them are special."""

    def __init__(self, gguf: Gguf) -> None:
        self.gguf = gguf
        self.kind = gguf.text(f"{_KEY}model")
        self.tokens = gguf.texts(f"{_KEY}tokens")
        if not self.tokens:
            raise CheckpointError(f"{gguf.path} has no tokens; give the model's by --tokenizer")
        kinds = gguf.numbers(f"{_KEY}token_type")
        self.kinds = kinds or (_NORMAL,) * len(self.tokens)
        if len(self.kinds) != len(self.tokens):
            raise CheckpointError(
                f"{gguf.path} has {len(self.tokens)} tokens and the types of {len(self.kinds)}"
            )
        defaults = _SENTENCEPIECE_IDS if self.kind == "llama" else {}
        self.ids = {name: self._id(name, defaults.get(name)) for name in _NAMED}

    def _id(self, name: str, default: int | None) -> int | None:
        key = f"{_KEY}{name}_token_id"
        if key not in self.gguf.metadata:
            return default
        number = self.gguf.integer(key)
        # Converters write an id behind the last token for what does not exist.
        return number if 0 <= number < len(self.tokens) else None

    @property
    def special(self) -> dict[str, str]:
        """``bos_token``, ``eos_token``, ... by text."""
        named = {ours: self.ids[theirs] for theirs, ours in _NAMED.items()}
        return {name: self.tokens[id] for name, id in named.items() if id is not None}

    def numbered(self) -> dict[str, int]:
        """Tokens to ids, without those that only fill up; the first of equal ones counts."""
        numbered: dict[str, int] = {}
        for number, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True)):
            if kind != _UNUSED:
                numbered.setdefault(token, number)
        return numbered

    def added(self) -> list[AddedToken]:
        """Tokens that are found in a text before it is cut, in the order of their ids."""
        special = {id for name, id in self.ids.items() if id is not None and name != "unknown"}
        found = []
        for number, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True)):
            is_special = kind == _CONTROL or number in special
            if token and (is_special or kind == _USER_DEFINED):
                found.append(AddedToken(token, special=is_special, normalized=False))
            elif token and kind == _UNKNOWN:
                found.append(AddedToken(token, special=True, normalized=False))
        return found

    def ends(self, *, adds_bos: bool) -> tuple[str | None, str | None]:
        """What a text begins and ends with; ``adds_bos``: unless the file says otherwise."""
        bos = self.gguf.flag(f"{_KEY}add_bos_token", adds_bos)
        eos = self.gguf.flag(f"{_KEY}add_eos_token", False)
        special = self.special
        return special.get("bos_token") if bos else None, special.get("eos_token") if eos else None


def _backend(vocabulary: _Vocabulary) -> Backend:
    if vocabulary.kind == "gpt2":
        rule = _rule(vocabulary.gguf)
        backend = _byte_level(vocabulary, rule)
        begin, end = vocabulary.ends(adds_bos=rule.adds_bos)
    elif vocabulary.kind == "llama":
        backend = _sentencepiece(vocabulary)
        begin, end = vocabulary.ends(adds_bos=True)
    else:
        raise CheckpointError(
            f"{vocabulary.gguf.path} has a tokenizer of the kind {vocabulary.kind!r}; gpt2 and "
            "llama are known: give the model's own by --tokenizer"
        )
    backend.add_tokens(vocabulary.added())
    if begin is not None or end is not None:
        template = " ".join(filter(None, (begin, "$A", end)))
        pairs = [(text, backend.token_to_id(text)) for text in (begin, end) if text is not None]
        backend.post_processor = processors.TemplateProcessing(template, None, pairs)
    return backend


def _rule(gguf: Gguf) -> PieceRule:
    name = gguf.text(f"{_KEY}pre", "default")
    rule = piece_rule(name)
    if rule is None:
        raise CheckpointError(
            f"{gguf.path} cuts text by the rule {name!r}, which is unknown: give the model's own "
            "tokenizer by --tokenizer"
        )
    return rule


def _byte_level(vocabulary: _Vocabulary, rule: PieceRule) -> Backend:
    merges = []
    for merge in vocabulary.gguf.texts(f"{_KEY}merges"):
        left, space, right = merge.partition(" ")
        if not space or not left or " " in right:
            raise CheckpointError(f"{vocabulary.gguf.path}: {merge!r} is no merge of two tokens")
        merges.append((left, right))
    model = models.BPE(vocabulary.numbered(), merges, ignore_merges=rule.ignores_merges)
    backend = Backend(model)
    to_characters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*rule.splits(), to_characters])
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(vocabulary: _Vocabulary) -> Backend:
    gguf = vocabulary.gguf
    numbered = vocabulary.numbered()
    scores = gguf.numbers(f"{_KEY}scores")
    if len(scores) != len(vocabulary.tokens):
        raise CheckpointError(
            f"{gguf.path} has {len(vocabulary.tokens)} tokens and the scores of {len(scores)}"
        )
    unknown = vocabulary.ids["unknown"]
    model = models.BPE(
        numbered,
        list(_merges(numbered, scores, vocabulary.kinds)),
        unk_token=None if unknown is None else vocabulary.tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Backend(model)
    prefixed = gguf.flag(f"{_KEY}add_space_prefix", True)
    spaces = normalizers.Replace(" ", _SPACE)
    prefix = [normalizers.Prepend(_SPACE)] if prefixed else []
    backend.normalizer = normalizers.Sequence([*prefix, spaces])
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    backend.decoder = decoders.Sequence([*steps, *strip])
    return backend


def _merges(
    numbered: Mapping[str, int], scores: Sequence[float], kinds: Sequence[float]
) -> Iterator[tuple[str, str]]:
    """Every way to make a token of two others, the tokens of the highest scores first: in
    sentencepiece, what neighbours make decides which are merged."""
    ordinary = [(token, number) for token, number in numbered.items() if kinds[number] == _NORMAL]
    ordinary.sort(key=lambda entry: (-scores[entry[1]], entry[1]))
    for token, _ in ordinary:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in numbered and right in numbered:
                yield left, right
