"""The bundled formats, one TOML file a family; each name is the class of its parser."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jackfield_tool_parsers.parsers import tool_parser
from jackfield_tool_parsers.scanner import CallScanner
from jackfield_tool_parsers.table import ToolFormat, read_formats

FOLDER = Path(__file__).parent


@cache
def all_formats() -> dict[str, ToolFormat]:
    """Every bundled format by its name."""
    return {
        made.name: made for path in sorted(FOLDER.glob("*.toml")) for made in read_formats(path)
    }


@cache
def _parser(name: str) -> type[CallScanner] | None:
    """A format's parser, or the same under another name."""
    path = FOLDER / f"{name}.toml"
    found = read_formats(path)[0] if path.is_file() else None
    if found is None:
        found = next((each for each in all_formats().values() if name in each.aliases), None)
    return None if found is None else tool_parser(found, __name__, name)


def __getattr__(name: str) -> type[CallScanner]:
    """Makes the parser class of that name."""
    found = None if name.startswith("_") else _parser(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
