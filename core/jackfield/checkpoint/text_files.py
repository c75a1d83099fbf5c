"""What a model directory says about its text: tokenizer_config.json and the chat templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jackfield.checkpoint.gguf import is_gguf, read_gguf_templates
from jackfield.checkpoint.reading import read_optional_json, read_text
from jackfield.errors import CheckpointError

# The second is what transformers writes.
_TEMPLATE_FOLDERS = ("chat_templates", "additional_chat_templates")


def read_chat_template(folder: Path, config: Mapping[str, object]) -> str | dict[str, str] | None:
    """The source of the template, or several by name. Template files win over
    tokenizer_config.json (``config``), and that over chat_template.json; a GGUF file has its own.
    """
    if is_gguf(folder):
        return read_gguf_templates(folder)
    templates: dict[str, str] = {}
    default = folder / "chat_template.jinja"
    if default.is_file():
        templates["default"] = read_text(default)
    for name in _TEMPLATE_FOLDERS:
        for path in sorted((folder / name).glob("*.jinja")):
            templates[path.name.removesuffix(".jinja")] = read_text(path)
    if templates:
        return templates["default"] if set(templates) == {"default"} else templates
    for source, path in (
        (config, folder / "tokenizer_config.json"),
        (read_optional_json(folder / "chat_template.json"), folder / "chat_template.json"),
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
