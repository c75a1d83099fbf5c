"""The laws of a tokenizer mode. Subclass ``TokenizerContract`` in a test file::

class TestMine(TokenizerContract):
    mode = MyTokenizerMode

    def write(self, directory):
        ...  # the files of a small tokenizer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from jackfield.contracts.text import Tokenizer, TokenizerMode
from jackfield.testing.plugins import assert_conforms

TEXTS = ("", "a", "Hello, world!", "two\nlines\t and tabs", "\u4f60\u597d \U0001f600 \u00e9", "  x")


class TokenizerContract:
    """Laws that hold for every tokenizer."""

    mode: ClassVar[Callable[[], TokenizerMode]]
    texts: ClassVar[Sequence[str]] = TEXTS
    """Texts that come back as they were."""

    def write(self, directory: Path) -> None:
        """Writes the files of a tokenizer, if it needs any."""

    @pytest.fixture
    def tokenizer(self, tmp_path: Path) -> Tokenizer:
        """A tokenizer as the server loads it."""
        self.write(tmp_path)
        return type(self).mode().load(str(tmp_path))

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("tokenizers", type(self).mode)

    def test_text_comes_back(self, tokenizer: Tokenizer) -> None:
        for text in self.texts:
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert all(0 <= token < tokenizer.vocab_size for token in ids)
            assert tokenizer.decode(ids) == text

    def test_special_tokens_are_ids_that_can_be_skipped(self, tokenizer: Tokenizer) -> None:
        assert all(0 <= token < tokenizer.vocab_size for token in tokenizer.special_ids)
        eos = tokenizer.eos_token_id
        if eos is not None:
            assert eos in tokenizer.special_ids
            ids = [*tokenizer.encode("a", add_special_tokens=False), eos]
            assert tokenizer.decode(ids, skip_special_tokens=True) == "a"
        for name, text in tokenizer.special_tokens.items():
            assert name.endswith("_token") and isinstance(text, str)

    def test_the_bytes_of_tokens_are_the_bytes_of_the_text(self, tokenizer: Tokenizer) -> None:
        for text in self.texts:
            ids = tokenizer.encode(text, add_special_tokens=False)
            pieces = [tokenizer.token_bytes(token) for token in ids]
            if any(piece is None for piece in pieces):
                pytest.skip("the vocabulary is not byte-exact")
            assert b"".join(piece or b"" for piece in pieces) == text.encode()

    def test_an_id_without_a_token_is_harmless(self, tokenizer: Tokenizer) -> None:
        for token in (tokenizer.vocab_size, tokenizer.vocab_size + 1000):
            assert tokenizer.token_text(token) == ""
            tokenizer.decode([token])
