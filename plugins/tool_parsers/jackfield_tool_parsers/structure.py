"""The grammar that forces a format, as xgrammar's structural tags.

https://xgrammar.mlc.ai/docs/structural_tag: formats are JSON objects; a tag is what stands between
a begin and an end. Properties of a schema come in the order in which it declares them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jackfield_tool_parsers.markers import SUFFIX
from jackfield_tool_parsers.table import ToolFormat
from jackfield_tool_parsers.value_grammar import Unforceable, fields_object, keyword_arguments
from jackfield_tool_parsers.value_grammar import tagged_parameters as _tagged

Grammar = dict[str, Any]
Schema = Mapping[str, object]
MAX_WHITESPACE = 16
NUMBER: Grammar = {"type": "regex", "pattern": r"\d{1,4}"}


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """One tool's call: a fixed beginning, what varies, and a fixed end."""

    begin: str
    content: Grammar
    end: str

    def tag(self) -> Grammar:
        """As a tag."""
        return {"type": "tag", "begin": self.begin, "content": self.content, "end": self.end}

    def parts(self) -> list[Grammar]:
        """As elements of a sequence."""
        return [*const(self.begin), self.content, *const(self.end)]


def structure(
    made: ToolFormat, tools: Sequence[Mapping[str, object]], choice: str, parallel: bool
) -> dict[str, Any] | None:
    """``StructuredToolParser.structure`` of a format."""
    made = _written(made)
    functions = [_function(tool) for tool in tools]
    if choice not in ("auto", "required"):
        functions = [each for each in functions if each[0] == choice]
        parallel = False
    try:
        calls = [call_grammar(made, name, schema) for name, schema in functions]
    except Unforceable:
        return None
    if not calls:
        return None
    form = _free(made, calls, parallel) if choice == "auto" else _forced(made, calls, parallel)
    return {"type": "structural_tag", "format": form}


def _written(made: ToolFormat) -> ToolFormat:
    """The format without the places of suffixes, which only the checkpoint knows."""
    if not any(SUFFIX in each for each in made.call_open):
        return made
    return dataclasses.replace(
        made,
        section_open=_unsuffixed(made.section_open),
        section_close=_unsuffixed(made.section_close),
        call_open=_unsuffixed(made.call_open),
        call_close=_unsuffixed(made.call_close),
        name_end=_unsuffixed(made.name_end),
    )


def _unsuffixed(markers: Sequence[str]) -> tuple[str, ...]:
    return tuple(each.replace(SUFFIX, "") for each in markers)


def call_grammar(made: ToolFormat, name: str, schema: Schema) -> CallGrammar:
    """How a format writes a call of one tool; ``Unforceable`` where that cannot be said."""
    begin, end = "".join(made.call_open), "".join(made.call_close)
    if made.shape == "json":
        return _json_call(made, begin, end, name, schema)
    if made.shape == "channels":
        header = f"{begin}commentary to=functions.{name} <|constrain|>json<|message|>"
        return CallGrammar(header, json_schema(schema), end)
    if made.shape == "pythonic":
        return CallGrammar(f"{begin}{name}(", keyword_arguments(schema), f"){end}")
    if made.shape == "fields":
        content = fields_object(schema, made.delimiters[0])
        return CallGrammar(f"{begin}{name}", content, end)
    begin = f"{begin}{made.name_prefix}{name}"
    head = _index(made) + const(made.name_end[0] if made.name_end else "")
    if made.shape == "named":
        return _joined(begin, head, [json_schema(schema)], end)
    # Where there are no parameters, one newline is enough between the tags.
    inside = [_tagged(made, schema) if not made.style else _by_style(made, schema)]
    if end.startswith("\n"):
        inside += optional_const("\n")
    return _joined(begin, [*head, *optional_const(made.name_break)], inside, end.lstrip("\n"))


def _joined(begin: str, head: list[Grammar], content: list[Grammar], end: str) -> CallGrammar:
    """What is fixed behind the beginning belongs to it."""
    if head and head[0]["type"] == "const_string":
        begin, head = begin + head[0]["value"], head[1:]
    return CallGrammar(begin, sequence([*head, *content]), end)


def _index(made: ToolFormat) -> list[Grammar]:
    """The number of a call, where one stands behind its name."""
    return [*const(made.name_index), NUMBER] if made.name_index else []


def _json_call(made: ToolFormat, begin: str, end: str, name: str, schema: Schema) -> CallGrammar:
    arguments = json_schema(schema)
    if made.name_is_key:
        return CallGrammar(f'{begin}{{"{name}": ', arguments, f"}}{end}")
    key = f'"{made.name_keys[0]}": "{name}", "{made.argument_keys[0]}": '
    if not made.id_key:
        return CallGrammar(f"{begin}{{{key}", arguments, f"}}{end}")
    content = sequence([NUMBER, *const(f'", {key}'), arguments])
    return CallGrammar(f'{begin}{{"{made.id_key}": "', content, f"}}{end}")


def _by_style(made: ToolFormat, schema: Schema) -> Grammar:
    return {**json_schema(schema), "style": made.style}


# --- several calls ---------------------------------------------------------------------


def _forced(made: ToolFormat, calls: Sequence[CallGrammar], parallel: bool) -> Grammar:
    """Nothing but calls, at least one."""
    some = sequence(_some(made, calls, parallel))
    opening = optional_const(made.lead)
    section = [*const("".join(made.section_open)), some, *const("".join(made.section_close))]
    return sequence([*opening, *section])


def _some(made: ToolFormat, calls: Sequence[CallGrammar], parallel: bool) -> list[Grammar]:
    one = either([sequence(call.parts()) for call in calls])
    return [one, star(sequence([*_separator(made), one]))] if parallel else [one]


def _separator(made: ToolFormat) -> list[Grammar]:
    """What stands between calls; whitespace that only looks nice may be left out."""
    find = optional_const if made.separator.isspace() else const
    return find(made.separator)


def _free(made: ToolFormat, calls: Sequence[CallGrammar], parallel: bool) -> Grammar:
    """Any text; once what begins calls is there, calls."""
    opening, closing = "".join(made.section_open), "".join(made.section_close)
    marker = (made.section_open or made.call_open)[:1]
    if made.bare or not marker:
        # Without a marker only the beginning of a tool's call shows that it is one.
        more = [star(sequence(_more(made, calls)))] if parallel else []
        tags = [_bare_tag(call, opening, closing, more) for call in calls]
        triggers = [tag["begin"] for tag in tags]
    elif made.section_open:
        content = sequence(_some(made, calls, parallel))
        tags = [{"type": "tag", "begin": opening, "content": content, "end": closing}]
        triggers = [marker[0].strip()]
    else:
        tags = [call.tag() for call in calls]
        triggers = [marker[0].strip()]
    return {
        "type": "triggered_tags",
        "triggers": list(dict.fromkeys(triggers)),
        "tags": tags,
        "at_least_one": False,
        "stop_after_first": not parallel,
    }


def _more(made: ToolFormat, calls: Sequence[CallGrammar]) -> list[Grammar]:
    return [*_separator(made), either([sequence(call.parts()) for call in calls])]


def _bare_tag(call: CallGrammar, opening: str, closing: str, more: Sequence[Grammar]) -> Grammar:
    begin = opening + call.begin
    if not closing:
        return {"type": "tag", "begin": begin, "content": call.content, "end": call.end}
    content = sequence([call.content, *const(call.end), *more])
    return {"type": "tag", "begin": begin, "content": content, "end": closing}


# --- formats ---------------------------------------------------------------------------


def const(value: str) -> list[Grammar]:
    """A text as it is, as the elements of a sequence; an empty one is none."""
    return [{"type": "const_string", "value": value}] if value else []


def sequence(elements: Sequence[Grammar]) -> Grammar:
    """One after the other."""
    return elements[0] if len(elements) == 1 else {"type": "sequence", "elements": list(elements)}


def either(elements: Sequence[Grammar]) -> Grammar:
    """One of them."""
    return elements[0] if len(elements) == 1 else {"type": "or", "elements": list(elements)}


def star(content: Grammar) -> Grammar:
    """Any number of times."""
    return {"type": "star", "content": content}


def optional_const(value: str) -> list[Grammar]:
    """A text that may be left out, as the elements of a sequence."""
    return [{"type": "optional", "content": each} for each in const(value)]


def json_schema(schema: Schema) -> Grammar:
    """JSON that a schema allows."""
    return {
        "type": "json_schema",
        "json_schema": dict(schema),
        "max_whitespace_cnt": MAX_WHITESPACE,
    }


def _function(tool: Mapping[str, object]) -> tuple[str, Schema]:
    function = tool["function"]
    assert isinstance(function, Mapping)
    parameters = function.get("parameters")
    schema = dict(parameters) if isinstance(parameters, Mapping) else {}
    return str(function["name"]), {"type": "object", **schema}
