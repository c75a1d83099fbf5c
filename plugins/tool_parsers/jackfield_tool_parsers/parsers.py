"""From a format to a tool parser: one class a shape, one subclass a format."""

from __future__ import annotations

from pathlib import Path

from jackfield_tool_parsers.channel_calls import ChannelCalls
from jackfield_tool_parsers.json_calls import JsonCalls
from jackfield_tool_parsers.literal_calls import FieldCalls, PythonicCalls
from jackfield_tool_parsers.named_calls import NamedCalls
from jackfield_tool_parsers.nested_calls import NestedCalls
from jackfield_tool_parsers.parameter_calls import ParameterCalls
from jackfield_tool_parsers.scanner import CallScanner
from jackfield_tool_parsers.table import ToolFormat, read_formats

SHAPES: dict[str, type[CallScanner]] = {
    "json": JsonCalls,
    "named": NamedCalls,
    "parameters": ParameterCalls,
    "pythonic": PythonicCalls,
    "fields": FieldCalls,
    "nested": NestedCalls,
    "channels": ChannelCalls,
}


def tool_parser(made: ToolFormat, module: str, name: str = "") -> type[CallScanner]:
    """The parser of a format, as a class that ``module`` has under its name; ``name`` is the
    format's own or one of its aliases."""
    shape = SHAPES[made.shape]
    name = (name or made.name).replace("-", "_")
    attributes = {
        **shape.tables(made),
        "name": name,
        "markers": made.markers(),
        "__module__": module,
        "__qualname__": name,
        "__doc__": f"{made.family}\n\n{made.example}",
    }
    return type(name, (shape,), attributes)


def tool_parsers_from_toml(path: Path, module: str) -> list[type[CallScanner]]:
    """The parsers of a TOML file, one for each name and alias; ``ConfigError`` says what is wrong
    with it. Reads the files of ``--tool-parser-plugin FILE.toml``."""
    return [
        tool_parser(made, module, name)
        for made in read_formats(path)
        for name in (made.name, *made.aliases)
    ]
