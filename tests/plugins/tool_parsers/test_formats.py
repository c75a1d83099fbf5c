"""Every bundled format by the kit, against renderers that know nothing of the tables."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.plugins.tool_parsers.renderers import FAMILIES, Family

from jackfield.testing.tool_parsers import Call, ToolParserContract, assert_well_formed
from jackfield.text.events import merge_events
from jackfield_tool_parsers import formats


def kit(name: str, family: Family) -> type[ToolParserContract]:
    class Kit(ToolParserContract):
        parser = getattr(formats, name)
        arguments = family.arguments
        examples = 12

        def render(self, calls: Sequence[Call]) -> str:
            return family.render(calls)

    return Kit


LAWS = [name for name in dir(ToolParserContract) if name.startswith("test_")]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_format_keeps_the_laws(name: str, law: str) -> None:
    getattr(kit(name, FAMILIES[name])(), law)()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_second_call_that_is_cut_anywhere_is_whole(name: str) -> None:
    format_kit = kit(name, FAMILIES[name])()
    calls = [Call("first", {"a": "b"}), Call("second", {"c": "d"})]
    text = format_kit.render(calls[:1]) + "0" + format_kit.render(calls[1:])
    for cut in range(len(text) + 1):
        parser = format_kit.new_parser(calls)
        assert_well_formed(merge_events([*parser.feed(text[:cut]), *parser.finish()]))
