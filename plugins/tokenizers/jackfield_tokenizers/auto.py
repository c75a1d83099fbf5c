"""Tokenizer mode ``auto``: a GGUF file's own, tokenizer.json, else tekken.json, else what
transformers can load."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import ClassVar

from jackfield.checkpoint import is_gguf
from jackfield.contracts.text import Tokenizer
from jackfield_tokenizers.fast import FastTokenizer
from jackfield_tokenizers.files import read_tokenizer_files
from jackfield_tokenizers.gguf import GgufTokenizerMode
from jackfield_tokenizers.mistral import TEKKEN, MistralTokenizerMode
from jackfield_tokenizers.slow import SlowTokenizerMode

log = logging.getLogger(__name__)


class AutoTokenizerMode:
    """Loads without transformers wherever there is one of the first three."""

    name: ClassVar[str] = "auto"
    api_version: ClassVar[int] = 1

    def load(self, directory: str, *, trust_remote_code: bool = False) -> Tokenizer:
        """Reads the files; ``CheckpointError`` names what is missing or damaged."""
        if is_gguf(Path(directory)):
            return GgufTokenizerMode().load(directory)
        files = read_tokenizer_files(directory)
        if os.path.lexists(files.directory / "tokenizer.json"):
            return FastTokenizer.from_files(files)
        if (files.directory / TEKKEN).is_file():
            return MistralTokenizerMode().load(directory)
        log.warning(
            "%s has no tokenizer.json: loading the tokenizer through transformers, which starts "
            "and runs slower (as --tokenizer-mode slow does)",
            directory,
        )
        return SlowTokenizerMode().load(directory, trust_remote_code=trust_remote_code)
