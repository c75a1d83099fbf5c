"""The bundled parsers that are tables: a class, under its plugin name, for each table and alias."""

from __future__ import annotations

from pathlib import Path

from jackfield_reasoning_parsers.table import ReasoningFormat, read_formats

_FOLDER = Path(__file__).parent / "formats"
# In the order in which ``auto`` looks: the most general tables are the last.
_FILES = ("channels.toml", "framed_answers.toml", "think_tags.toml")

FORMATS: tuple[ReasoningFormat, ...] = tuple(
    format for name in _FILES for format in read_formats(_FOLDER / name)
)


def _classes() -> dict[str, type]:
    classes: dict[str, type] = {}
    for each in FORMATS:
        for parser in each.parsers():
            parser.__module__, parser.__qualname__ = __name__, parser.name
            classes[parser.name] = parser
    return classes


globals().update(_classes())
