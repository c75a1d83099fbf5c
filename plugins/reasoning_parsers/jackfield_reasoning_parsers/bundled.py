"""The bundled parsers that are tables: a class, under its plugin name, for each table and alias."""

from __future__ import annotations

from pathlib import Path

from jackfield_reasoning_parsers.table import ReasoningFormat, read_formats

_FOLDER = Path(__file__).parent / "formats"
# In the order in which ``auto`` looks: the most general tables are the last.
_FILES = ("channels.toml", "framed_answers.toml", "think_tags.toml")

FORMATS: tuple[ReasoningFormat, ...] = tuple(
    each for name in _FILES for each in read_formats(_FOLDER / name)
)

globals().update({parser.name: parser for each in FORMATS for parser in each.parsers(__name__)})
