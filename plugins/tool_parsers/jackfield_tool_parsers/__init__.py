"""Bundled plugins of the kind tool_parsers: tables of formats, and the scanners that read them.

A distribution that ships a format as a TOML file has a module with one line for it::

    (MyToolParser,) = tool_parsers_from_toml(Path(__file__).with_name("mine.toml"), __name__)
"""

from jackfield_tool_parsers.parsers import tool_parsers_from_toml

__all__ = ["tool_parsers_from_toml"]
