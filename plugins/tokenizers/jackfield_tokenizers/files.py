"""What a model directory says about its tokenizer beside the vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jackfield.errors import CheckpointError

# The second is what transformers writes.
_TEMPLATE_FOLDERS = ("chat_templates", "additional_chat_templates")
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
    config = _read_json(folder / "tokenizer_config.json")
    return TokenizerFiles(
        folder, config, _special_tokens(folder, config), _template(folder, config)
    )


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _special_tokens(folder: Path, config: Mapping[str, object]) -> dict[str, str]:
    """Named special tokens. special_tokens_map.json is the older file: it fills what the
    configuration leaves out, and wins where the configuration lists no added tokens."""
    named = {f"{name}_token" for name in _NAMED}
    older = _read_json(folder / "special_tokens_map.json")
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


def _template(folder: Path, config: Mapping[str, object]) -> str | dict[str, str] | None:
    """Template files win over tokenizer_config.json, and that over chat_template.json."""
    templates: dict[str, str] = {}
    default = folder / "chat_template.jinja"
    if default.is_file():
        templates["default"] = _read_text(default)
    for name in _TEMPLATE_FOLDERS:
        for path in sorted((folder / name).glob("*.jinja")):
            templates[path.name.removesuffix(".jinja")] = _read_text(path)
    if templates:
        return templates["default"] if set(templates) == {"default"} else templates
    for source, path in (
        (config, folder / "tokenizer_config.json"),
        (_read_json(folder / "chat_template.json"), folder / "chat_template.json"),
    ):
        value = source.get("chat_template")
        if value is not None:
            return _template_value(value, path)
    return None


def _template_value(value: object, path: Path) -> str | dict[str, str]:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        try:
            return {str(entry["name"]): str(entry["template"]) for entry in value}
        except (TypeError, KeyError):
            pass
    raise CheckpointError(f"{path}: chat_template is neither a string nor a list of named ones")
