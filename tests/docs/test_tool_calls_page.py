"""docs/tool-calls.md: its table is a parser, and its shapes are all there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jackfield.config.plan import PluginSource
from jackfield.contracts.text import ParserContext
from jackfield.registry import Registry
from jackfield.testing.tool_parsers import Call, calls_of
from jackfield_tool_parsers import formats
from jackfield_tool_parsers.parsers import SHAPES

PAGE = (Path(__file__).parents[2] / "docs" / "tool-calls.md").read_text(encoding="utf-8")


def test_the_table_is_a_parser_that_can_be_forced(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    path = tmp_path / "mine.toml"
    path.write_text(found[1])
    parser = Registry([PluginSource("tool_parsers", str(path))]).load("tool_parsers", "mine")
    example = found[1].strip().rpartition("# ")[2]
    made = parser(ParserContext())
    assert calls_of([*made.feed(example), *made.finish()]) == [
        Call("get_weather", {"city": "Paris"})
    ]
    tool = {"type": "function", "function": {"name": "get_weather"}}
    assert parser.structure([tool], "required")["type"] == "structural_tag"


def test_the_shapes_are_those_that_there_are() -> None:
    rows: Sequence[tuple[str, str]] = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", PAGE, re.MULTILINE)
    assert [shape for shape, _ in rows] == list(SHAPES)
    for shape, names in rows:
        for name in re.findall(r"`(\w+)`", names):
            assert formats.all_formats()[name].shape == shape
