"""What a family's format is, as data: how TOML says it, and the parser class that it becomes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jackfield.contracts.tables import Detection, Strings, from_table, read_tables
from jackfield_reasoning_parsers.channels import ChannelReasoningParser, Channels
from jackfield_reasoning_parsers.tag_pair import TagPair, TagPairReasoningParser

Parser = type[TagPairReasoningParser] | type[ChannelReasoningParser]
SHAPES: Mapping[str, type[TagPair] | type[Channels]] = {"tags": TagPair, "channels": Channels}
_NEEDED = {
    "tags": ("end",),
    "channels": ("opens", "marks", "ends", "thought_header", "start", "end"),
}
_PATTERNS = {"suffix_pattern", "thought_header", "answer_header"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningFormat:
    """One family's way to write its thoughts. ``form`` has the keys of the shape: those of
    ``TagPair`` (``shape = "tags"``) or of ``Channels`` (``shape = "channels"``)."""

    name: str
    form: TagPair | Channels
    family: str = ""
    """Whose models these are."""
    sources: Strings = ()
    """Where the facts are from."""
    example: str = ""
    """Output of such a model: a thought ``Hm.`` and an answer ``Hello.``"""
    aliases: Strings = ()
    detect: Detection = field(default_factory=Detection)

    def parsers(self, module: str) -> list[Parser]:
        """A parser class for the name and for each alias, which ``module`` has under its name."""
        return [self._parser(name, module) for name in (self.name, *self.aliases)]

    def _parser(self, name: str, module: str) -> Parser:
        said: dict[str, object] = {
            "name": name,
            "__module__": module,
            "__doc__": f"{self.family or name}\n\n{self.example}",
        }
        if isinstance(self.form, TagPair):
            return type(name, (TagPairReasoningParser,), {**said, "tags": self.form})
        return type(name, (ChannelReasoningParser,), {**said, "channels": self.form})


def reasoning_parsers_from_toml(path: Path, module: str) -> list[Parser]:
    """The parsers of a TOML file, one for each name and alias; ``ConfigError`` says what is wrong
    with it."""
    return [parser for each in read_formats(path) for parser in each.parsers(module)]


def read_formats(path: Path) -> list[ReasoningFormat]:
    """The formats of a TOML file, one table each; ``ConfigError`` names what is wrong."""
    return read_tables(path, "reasoning formats", _format)


def _format(name: str, table: Mapping[str, object]) -> ReasoningFormat:
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError("a name has small letters, digits and underscores only")
    rest = dict(table)
    shape = rest.pop("shape", "tags")
    if not isinstance(shape, str) or shape not in SHAPES:
        raise ValueError(f"shape is {shape!r} and not one of {', '.join(SHAPES)}")
    known = {each.name for each in dataclasses.fields(ReasoningFormat)} - {"name", "form"}
    common = {key: rest.pop(key) for key in known & rest.keys()}
    form = from_table(SHAPES[shape], rest, f"keys of the shape {shape}")
    for key in _NEEDED[shape]:
        if not getattr(form, key):
            raise ValueError(f"the shape {shape} needs {key}")
    for key in _PATTERNS & {each.name for each in dataclasses.fields(form)}:
        _check_pattern(key, getattr(form, key))
    return from_table(ReasoningFormat, {**common, "name": name, "form": form})


def _check_pattern(key: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{key} is no regular expression: {error}") from None
