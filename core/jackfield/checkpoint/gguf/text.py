"""What the metadata of a GGUF file say of text: chat templates and sampling defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jackfield.checkpoint.gguf.files import read_gguf

_TEMPLATE = "tokenizer.chat_template"
_TEMPLATE_NAMES = "tokenizer.chat_templates"
_SAMPLING: Mapping[str, str] = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}


def read_gguf_templates(path: Path) -> str | dict[str, str] | None:
    """The source of the chat template, or several by name."""
    gguf = read_gguf(path)
    default = gguf.text(_TEMPLATE) if _TEMPLATE in gguf.metadata else None
    named = {name: gguf.text(f"{_TEMPLATE}.{name}") for name in gguf.texts(_TEMPLATE_NAMES)}
    if not named:
        return default
    return named if default is None else {"default": default, **named}


def read_gguf_generation(path: Path) -> dict[str, object]:
    """The sampling defaults by the names of ``generation_config.json``."""
    metadata = read_gguf(path).metadata
    return {ours: metadata[theirs] for theirs, ours in _SAMPLING.items() if theirs in metadata}
