"""Tokenizer mode ``slow``: transformers' ``AutoTokenizer``, for what has no tokenizer.json."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from jackfield.contracts.text import Tokenizer
from jackfield.errors import CheckpointError
from jackfield_tokenizers.files import read_tokenizer_files
from jackfield_tokenizers.vocabulary import TokenBytes, token_bytes_rule


class SlowTokenizerMode:
    """Imports transformers when it loads, and not before."""

    name: ClassVar[str] = "slow"
    api_version: ClassVar[int] = 1

    def load(self, directory: str, *, trust_remote_code: bool = False) -> Tokenizer:
        """Reads the files; ``CheckpointError`` says what transformers missed."""
        files = read_tokenizer_files(directory)
        from transformers import AutoTokenizer  # takes seconds

        try:
            inner = AutoTokenizer.from_pretrained(
                directory, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except Exception as error:  # whatever the tokenizer's own code raises
            raise CheckpointError(
                f"transformers cannot load a tokenizer from {directory}: {_reason(error)}"
            ) from error
        return TransformersTokenizer(inner, files.chat_template)


class TransformersTokenizer:
    """A transformers tokenizer behind a lock: its encode sets state on the shared object."""

    def __init__(self, inner: Any, chat_template: str | Mapping[str, str] | None) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        template = getattr(inner, "chat_template", None)
        self._chat_template: str | Mapping[str, str] | None = template or chat_template
        self._special_tokens = {str(k): str(v) for k, v in inner.special_tokens_map.items()}
        added: dict[int, Any] = dict(inner.added_tokens_decoder)
        self._special_ids = frozenset(id for id, token in added.items() if token.special)
        self._rule = _rule(inner)

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        with self._lock:
            return 1 + max(self._inner.get_vocab().values(), default=-1)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that ``skip_special_tokens`` drops."""
        return self._special_ids

    @property
    def eos_token_id(self) -> int | None:
        """Id of the end-of-sequence token, if there is one."""
        id = self._inner.eos_token_id
        return None if id is None else int(id)

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """``bos_token``, ``eos_token``, ... as chat templates see them."""
        return self._special_tokens

    @property
    def chat_template(self) -> str | Mapping[str, str] | None:
        """The checkpoint's own template, unrendered."""
        return self._chat_template

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        with self._lock:
            ids: list[int] = self._inner.encode(text, add_special_tokens=add_special_tokens)
        return ids

    def encode_pair(self, text: str, other: str) -> list[int]:
        with self._lock:
            ids: list[int] = self._inner.encode(text, other)
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        with self._lock:
            text: str = self._inner.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token_text(self, token_id: int) -> str:
        with self._lock:
            try:
                token = self._inner.convert_ids_to_tokens(token_id)
            except (IndexError, KeyError, OverflowError):
                return ""
        return token if isinstance(token, str) else ""

    def token_bytes(self, token_id: int) -> bytes | None:
        return None if self._rule is None else self._rule(self.token_text(token_id))


def _rule(inner: Any) -> TokenBytes | None:
    """Exact bytes only where transformers itself decodes with a ``tokenizers`` backend."""
    backend = getattr(inner, "backend_tokenizer", None)
    decoder = getattr(backend, "decoder", None)
    get_state: Callable[[], bytes] | None = getattr(decoder, "__getstate__", None)
    if get_state is None or getattr(inner, "clean_up_tokenization_spaces", False):
        return None
    state = get_state()
    return token_bytes_rule(json.loads(state)) if isinstance(state, bytes) else None


def _reason(error: Exception) -> str:
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    lines = str(error).strip().splitlines()
    if "tiktoken" in str(error) and not (is_protobuf_available() and is_sentencepiece_available()):
        # Without these transformers takes a sentencepiece model for one of tiktoken's.
        return "a sentencepiece model needs the packages sentencepiece and protobuf; install them"
    return lines[0] if lines else type(error).__name__
