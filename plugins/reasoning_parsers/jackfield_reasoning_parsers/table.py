"""What a family's format is, as data: how TOML says it, and the parser class that it becomes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from jackfield.contracts.tables import read_tables
from jackfield_reasoning_parsers.channels import ChannelReasoningParser, Channels
from jackfield_reasoning_parsers.tag_pair import TagPair, TagPairReasoningParser

Strings = tuple[str, ...]
T = TypeVar("T")
Parser = type[TagPairReasoningParser] | type[ChannelReasoningParser]
SHAPES: Mapping[str, type[TagPair] | type[Channels]] = {"tags": TagPair, "channels": Channels}
_NEEDED = {
    "tags": ("end",),
    "channels": ("opens", "marks", "ends", "thought_header", "start", "end"),
}
_PATTERNS = {"suffix_pattern", "thought_header", "answer_header"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How ``auto`` knows the family. ``template``: what its chat template contains, all of it;
    ``without``: what it does not contain; ``architectures``: class names of ``config.json``."""

    template: Strings = ()
    without: Strings = ()
    architectures: Strings = ()


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
    form = _made(SHAPES[shape], rest, f"keys of the shape {shape}")
    for key in _NEEDED[shape]:
        if not getattr(form, key):
            raise ValueError(f"the shape {shape} needs {key}")
    for key in _PATTERNS & {each.name for each in dataclasses.fields(form)}:
        _check_pattern(key, getattr(form, key))
    detect = common.pop("detect", {})
    if not isinstance(detect, dict):
        raise ValueError("detect must be a table")
    made = _made(ReasoningFormat, {**common, "name": name, "form": form}, "keys")
    assert isinstance(made, ReasoningFormat)
    return dataclasses.replace(made, detect=_made(Detection, detect, "keys of detect"))


def _check_pattern(key: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{key} is no regular expression: {error}") from None


def _made(cls: type[T], values: Mapping[str, object], what: str) -> T:
    """The dataclass with these values, checked against its fields."""
    known = {each.name: str(each.type) for each in dataclasses.fields(cls)}  # type: ignore[arg-type]
    checked = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"there is no key {key}; {what}: {', '.join(sorted(known))}")
        checked[key] = _value(key, value, known[key])
    return cls(**checked)


def _value(key: str, value: object, wanted: str) -> object:
    if wanted.startswith(("Strings", "tuple[str, ...]")):
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(each, str) and each for each in parts):
            raise ValueError(f"{key} must be a string or a list of strings, none empty")
        return tuple(parts)
    if wanted in ("str", "bool"):
        if not isinstance(value, bool if wanted == "bool" else str):
            raise ValueError(f"{key} must be a {'boolean' if wanted == 'bool' else 'string'}")
    return value
