"""Tokenizer mode ``mistral``: Mistral's ``tekken.json``, without Mistral's own library.

The file has the bytes of each token by rank and a regular expression that cuts a text; two
neighbours are merged if what they make has the lowest rank (the rule of tiktoken). Special tokens
have the first ids.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from jackfield.checkpoint import read_optional_json
from jackfield.contracts.text import Tokenizer
from jackfield.errors import CheckpointError
from jackfield_tokenizers.fast import FastTokenizer
from jackfield_tokenizers.files import read_tokenizer_files
from jackfield_tokenizers.vocabulary import byte_alphabet

TEKKEN = "tekken.json"

# Of files that do not list them; as mistral-common has them.
_SPECIAL = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] "
    "[/TOOL_RESULTS] [TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] "
    "[SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
).split()
_NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_CHARACTERS = {byte: character for character, byte in byte_alphabet().items()}


class MistralTokenizerMode:
    """Loads with the ``tokenizers`` library, as ``auto`` does."""

    name: ClassVar[str] = "mistral"
    api_version: ClassVar[int] = 1

    def load(self, directory: str, *, trust_remote_code: bool = False) -> Tokenizer:
        """Reads the file; ``CheckpointError`` where it is missing or damaged."""
        files = read_tokenizer_files(directory)
        path = files.directory / TEKKEN
        content = read_optional_json(path)
        if not content:
            raise CheckpointError(f"{directory} has no {TEKKEN}; take --tokenizer-mode auto")
        try:
            backend = _backend(content)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        known = {
            name: text for name, text in _NAMED.items() if backend.token_to_id(text) is not None
        }
        return FastTokenizer(backend, known, files.chat_template)


def _backend(content: Mapping[str, Any]) -> Backend:
    config = content["config"]
    num_special = int(config["default_num_special_tokens"])
    special = _special_tokens(content.get("special_tokens"), num_special)
    entries = content["vocab"][: int(config["default_vocab_size"]) - num_special]
    tokens = [base64.b64decode(entry["token_bytes"], validate=True) for entry in entries]
    vocabulary = {text: number for number, (text, _) in enumerate(special)}
    for rank, token in enumerate(tokens):
        vocabulary[_written(token)] = num_special + rank
    if len(vocabulary) != num_special + len(tokens):
        raise ValueError("a token is there twice")
    # A piece of text that is a token is taken for it, whatever the merges say.
    model = models.BPE(vocabulary, list(_merges(tokens)), ignore_merges=True)
    backend = Backend(model)
    cut = pre_tokenizers.Split(Regex(config["pattern"]), behavior="isolated")
    to_characters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, to_characters])
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(
        [AddedToken(text, special=is_control, normalized=False) for text, is_control in special]
    )
    begin = _NAMED["bos_token"]
    if begin in vocabulary:
        pair = [(begin, vocabulary[begin])]
        backend.post_processor = processors.TemplateProcessing(f"{begin} $A", None, pair)
    return backend


def _special_tokens(said: Sequence[Mapping[str, Any]] | None, count: int) -> list[tuple[str, bool]]:
    """(text, whether it is for the model alone) of the first ``count`` ids."""
    if said is None:
        named = [(text, True) for text in _SPECIAL]
    else:
        ordered = sorted(said, key=lambda entry: int(entry["rank"]))
        named = [
            (str(entry["token_str"]), bool(entry.get("is_control", True))) for entry in ordered
        ]
    if len(named) > count:
        raise ValueError(f"{len(named)} special tokens, but room for {count}")
    return [*named, *((f"<SPECIAL_{number}>", True) for number in range(len(named), count))]


def _merges(tokens: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    """Every way to make a token of two of lower rank, in the order of the ranks."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    for rank, token in enumerate(tokens):
        pairs = (
            (ranks.get(token[:cut], rank), ranks.get(token[cut:], rank))
            for cut in range(1, len(token))
        )
        for left, right in sorted(pair for pair in pairs if max(pair) < rank):
            yield _written(tokens[left]), _written(tokens[right])


def _written(token: bytes) -> str:
    """A token by the printable stand-ins of its bytes."""
    return "".join(map(_CHARACTERS.__getitem__, token))
