"""What a model directory says about its tokenizer beside the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jackfield.checkpoint import read_chat_template, read_optional_json
from jackfield.errors import CheckpointError

_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# The second is what transformers wrote before its version 5.
_EXTRA = ("extra_special_tokens", "additional_special_tokens")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """``config`` is tokenizer_config.json; ``special_tokens`` maps names (``eos_token``) to
    tokens, ``extra_tokens`` are special too, without a name; ``chat_template`` is the source, or
    several by name."""

    directory: Path
    config: Mapping[str, object]
    special_tokens: Mapping[str, str]
    extra_tokens: Sequence[str]
    chat_template: str | Mapping[str, str] | None


def read_tokenizer_files(directory: str) -> TokenizerFiles:
    """Reads them all; ``CheckpointError`` names a file that is damaged."""
    folder = Path(directory)
    if not folder.is_dir():
        raise CheckpointError(f"the tokenizer directory {directory} does not exist")
    config = read_optional_json(folder / "tokenizer_config.json")
    # The older file fills what the configuration leaves out, and wins where the configuration
    # lists no added tokens.
    older = read_optional_json(folder / "special_tokens_map.json")
    sources = (older, config) if "added_tokens_decoder" in config else (config, older)
    named, extra = _named_tokens(*sources), _extra_tokens(config, older)
    return TokenizerFiles(
        folder,
        config,
        named | extra if isinstance(extra, dict) else named,
        extra if isinstance(extra, list) else (),
        read_chat_template(folder, config),
    )


def _named_tokens(*sources: Mapping[str, object]) -> dict[str, str]:
    """Special tokens by name; a later source wins."""
    named = {f"{name}_token" for name in _NAMED}
    tokens: dict[str, str] = {}
    for source in sources:
        for key, value in source.items():
            text = _text(value)
            if key in named or (key.endswith("_token") and text is not None):
                tokens.pop(key, None)
                if text is not None:
                    tokens[key] = text
    return tokens


def _extra_tokens(*sources: Mapping[str, object]) -> dict[str, str] | list[str]:
    """The further special tokens of the first source that has some, with or without names."""
    said = [source[key] for source in sources for key in _EXTRA if source.get(key)]
    first = said[0] if said else ()
    if isinstance(first, Mapping):
        return {key: text for key, value in first.items() if (text := _text(value)) is not None}
    listed = first if isinstance(first, list) else []
    return [text for value in listed if (text := _text(value)) is not None]


def _text(value: object) -> str | None:
    """A token that is written as its text, or as an object with its flags."""
    text = value.get("content") if isinstance(value, Mapping) else value
    return text if isinstance(text, str) else None
