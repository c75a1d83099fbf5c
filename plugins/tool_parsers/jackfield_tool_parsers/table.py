"""What a family's format is, as data: the tables that shapes work on, and how TOML says them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jackfield.contracts.tables import Detection, Strings, from_table, read_tables
from jackfield_tool_parsers.markers import SUFFIX

_TOKEN = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """One family's way to write calls, as the model writes them when it does it well.

    A marker may be given in parts: they are written together and read one by one, with any
    whitespace around each. Fields of other shapes than the format's own are empty.
    """

    name: str
    shape: str
    family: str
    """Whose models these are."""
    sources: Strings
    """Where the facts are from."""
    example: str
    """Output of such a model: two calls where it can make two."""
    aliases: Strings = ()
    detect: Detection = field(default_factory=Detection)

    lead: str = ""
    """What may stand before the first call when nothing else does."""
    section_open: Strings = ()
    """Before the first of several calls."""
    section_close: Strings = ()
    call_open: Strings = ()
    call_close: Strings = ()
    separator: str = ""
    """Between two calls."""
    header_open: Strings = ()
    """Begins a header that may stand before the section, and goes on to ``header_end``."""
    header_end: str = ""
    also_open: Strings = ()
    """Other markers that a model may begin with."""
    also_close: Strings = ()
    optional_section: bool = False
    """Whether a call may begin without the section."""
    bare: str = ""
    """Brackets that begin calls without a marker, at the beginning of a line."""

    name_keys: Strings = ("name",)
    """json: the keys of the name; the first is written."""
    argument_keys: Strings = ("arguments", "parameters")
    id_key: str = ""
    """json: the key of the call's number, which is written first."""
    name_is_key: bool = False
    """json: an object's key is the name and its value the arguments."""

    name_prefix: str = ""
    """named, parameters: stands before the name, may be missing."""
    name_index: str = ""
    """named, parameters: between the name and the number of the call."""
    name_is_id: bool = False
    """named: whether the name with its prefix and number is the call's id, by which the chat
    template writes it again."""
    name_end: Strings = ()
    """named, parameters: behind the name, the first is written; others may be."""
    name_break: str = ""
    """parameters: written behind the name where nothing ends it."""
    name_rest: str = ""
    """named: what begins a part of the name's text that is not the name but the call's id."""
    id_length: int = 0
    """How many letters and digits ids must have for the chat template to take them; 0: any."""
    json_too: bool = False
    """named, parameters: whether a JSON object or array may follow the opener instead."""

    parameter_open: str = ""
    key_end: Mapping[str, str] = field(default_factory=dict)
    """parameters: what stands between a key and its value, and what it says of the value:
    ``schema`` (the tool's schema decides), ``string`` (if the schema has strings there), or
    ``json``. The first is written."""
    value_end: Strings = ()
    newlines: bool = False
    """parameters: whether a newline before and after each value belongs to the markers. Then a
    value without its end ends where a line begins the next one, and at the call's whole end."""
    style: str = ""
    """parameters: what xgrammar calls this way of writing a schema's values."""

    namespace: str = ""
    """nested: stands before each tag."""
    delimiters: Strings = ()
    """fields: what strings stand between; the first is written."""
    tokens: Strings = ()
    """Special tokens that the detokenizer must keep, beyond those that markers are."""

    def markers(self) -> frozenset[str]:
        """What may be a special token of such a model's vocabulary."""
        texts = [self.parameter_open, self.header_end, self.name_rest, *self.key_end]
        texts += [*self.section_open, *self.section_close, *self.call_open, *self.call_close]
        texts += [*self.also_open, *self.also_close, *self.header_open, *self.name_end]
        texts += self.value_end
        found = {token for text in texts for token in _TOKEN.findall(text.replace(SUFFIX, ""))}
        return frozenset(found | set(self.tokens))


SHAPES = ("json", "named", "parameters", "pythonic", "fields", "nested", "channels")
_NEEDED = {
    "json": (),
    "named": ("call_open", "name_end"),
    "parameters": ("call_open", "parameter_open", "key_end", "value_end"),
    "pythonic": (),
    "fields": ("call_open", "delimiters"),
    "nested": ("call_open", "name_end", "namespace"),
    "channels": (),
}


def read_formats(path: Path) -> list[ToolFormat]:
    """The formats of a TOML file, one table each; ``ConfigError`` names what is wrong."""
    return read_tables(path, "tool formats", _format)


def _format(name: str, table: Mapping[str, object]) -> ToolFormat:
    if "name" in table:
        raise ValueError("the table's own name is the format's: leave the key name out")
    _check_kinds(table.get("key_end", {}))
    given: dict[str, object] = {"family": "", "sources": [], "example": "", **table, "name": name}
    made = from_table(ToolFormat, given)
    if made.shape not in SHAPES:
        raise ValueError(f"shape is {made.shape!r} and not one of {', '.join(SHAPES)}")
    for key in _NEEDED[made.shape]:
        if not getattr(made, key):
            raise ValueError(f"the shape {made.shape} needs {key}")
    if not (made.section_open or made.call_open or made.bare or made.shape == "channels"):
        raise ValueError("nothing tells where a call begins: give call_open or section_open")
    return made


def _check_kinds(key_end: object) -> None:
    kinds = {"schema", "string", "json"}
    if not isinstance(key_end, dict) or not set(key_end.values()) <= kinds:
        raise ValueError(f"key_end must map markers to one of {', '.join(sorted(kinds))}")
