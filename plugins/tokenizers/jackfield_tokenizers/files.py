"""What a model directory says about its tokenizer beside the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jackfield.checkpoint import read_chat_template, read_optional_json
from jackfield.errors import CheckpointError

_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """``config`` is tokenizer_config.json; ``special_tokens`` maps names (``eos_token``) to
    tokens; ``chat_template`` is the source, or several by name."""

    directory: Path
    config: Mapping[str, object]
    special_tokens: Mapping[str, str]
    chat_template: str | Mapping[str, str] | None


def read_tokenizer_files(directory: str) -> TokenizerFiles:
    """Reads them all; ``CheckpointError`` names a file that is damaged."""
    folder = Path(directory)
    if not folder.is_dir():
        raise CheckpointError(f"the tokenizer directory {directory} does not exist")
    config = read_optional_json(folder / "tokenizer_config.json")
    return TokenizerFiles(
        folder, config, _special_tokens(folder, config), read_chat_template(folder, config)
    )


def _special_tokens(folder: Path, config: Mapping[str, object]) -> dict[str, str]:
    """Named special tokens. special_tokens_map.json is the older file: it fills what the
    configuration leaves out, and wins where the configuration lists no added tokens."""
    named = {f"{name}_token" for name in _NAMED}
    older = read_optional_json(folder / "special_tokens_map.json")
    sources = (older, config) if "added_tokens_decoder" in config else (config, older)
    tokens: dict[str, str] = {}
    for source in sources:
        for key, value in source.items():
            text = value.get("content") if isinstance(value, Mapping) else value
            if key in named or (key.endswith("_token") and isinstance(text, str)):
                tokens.pop(key, None)
                if isinstance(text, str):
                    tokens[key] = text
    return tokens
