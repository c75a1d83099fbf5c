"""A tokenizer.json through the ``tokenizers`` library, as the kernel's ``Tokenizer``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from jackfield.errors import CheckpointError
from jackfield_tokenizers.files import TokenizerFiles
from jackfield_tokenizers.vocabulary import token_bytes_rule

LONG_CHARACTERS = 2048
"""The library holds the interpreter while it encodes a text, not for a batch: from here on (half
a millisecond) a text is a batch of one."""
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class FastTokenizer:
    """Encodes and decodes with one backend; the backend may be used from several threads."""

    def __init__(
        self,
        backend: Backend,
        special_tokens: Mapping[str, str],
        chat_template: str | Mapping[str, str] | None,
        *,
        clean_up_spaces: bool = False,
    ) -> None:
        # A stored truncation or padding would silently change prompts.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._special_tokens = dict(special_tokens)
        self._chat_template = chat_template
        # On BPE the clean-up destroys spaces that the text had; transformers ignores it too.
        self._clean_up = clean_up_spaces and type(backend.model).__name__ != "BPE"
        decoder = None if backend.decoder is None else json.loads(backend.decoder.__getstate__())
        self._rule = None if self._clean_up else token_bytes_rule(decoder)
        added = backend.get_added_tokens_decoder()
        self._special_ids = frozenset(id for id, token in added.items() if token.special)

    @classmethod
    def from_files(cls, files: TokenizerFiles) -> FastTokenizer:
        """Loads ``tokenizer.json`` of a model directory and what the other files add to it."""
        path = files.directory / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{path} cannot be read: it is no file")
        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        try:
            _add_tokens(backend, files)
        except (TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{files.directory / 'tokenizer_config.json'}: bad added_tokens_decoder: {error}"
            ) from error
        return cls(
            backend,
            files.special_tokens,
            files.chat_template,
            clean_up_spaces=files.config.get("clean_up_tokenization_spaces") is True,
        )

    @cached_property
    def vocab_size(self) -> int:
        """Found on first use: listing a large vocabulary takes a fifth of a second."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that ``skip_special_tokens`` drops."""
        return self._special_ids

    @property
    def eos_token_id(self) -> int | None:
        """Id of ``eos_token``, if the checkpoint names one."""
        token = self._special_tokens.get("eos_token")
        return None if token is None else self._backend.token_to_id(token)

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """``bos_token``, ``eos_token``, ... as chat templates see them."""
        return self._special_tokens

    @property
    def chat_template(self) -> str | Mapping[str, str] | None:
        """The checkpoint's own template, unrendered."""
        return self._chat_template

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        if len(text) < LONG_CHARACTERS:
            return self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        (found,) = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return found.ids

    def encode_pair(self, text: str, other: str) -> list[int]:
        if len(text) + len(other) < LONG_CHARACTERS:
            return self._backend.encode(text, other).ids
        (found,) = self._backend.encode_batch_fast([(text, other)])
        return found.ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        text = self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
        return _cleaned_up(text) if self._clean_up else text

    def token_text(self, token_id: int) -> str:
        return self._backend.id_to_token(token_id) or ""

    def token_bytes(self, token_id: int) -> bytes | None:
        return None if self._rule is None else self._rule(self.token_text(token_id))


def _add_tokens(backend: Backend, files: TokenizerFiles) -> None:
    """Adds, in transformers' order, what tokenizer.json lacks: the configuration's added tokens,
    then special tokens, so that both sides number them alike."""
    known = backend.get_added_tokens_decoder()
    missing: list[AddedToken] = []
    listed = files.config.get("added_tokens_decoder")
    if isinstance(listed, Mapping):
        have = {repr(token) for token in known.values()}
        for _, entry in sorted(listed.items(), key=lambda item: int(item[0])):
            flags = {flag: bool(entry[flag]) for flag in _FLAGS if flag in entry}
            token = AddedToken(str(entry["content"]), **flags)
            if repr(token) not in have:
                missing.append(token)
    names = {token.content for token in (*known.values(), *missing)}
    for text in (*files.special_tokens.values(), *files.extra_tokens):
        if text not in names:
            names.add(text)
            missing.append(AddedToken(text, special=True))
    if missing:
        backend.add_tokens(missing)


def _cleaned_up(text: str) -> str:
    """The spaces of English that WordPiece vocabularies leave before punctuation."""
    for spaced, joined in (
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ):
        text = text.replace(spaced, joined)
    return text
