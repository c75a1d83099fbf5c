"""Every bundled format by the kit, against renderers that know nothing of the tables."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.plugins.tool_parsers.renderers import FAMILIES, Family

from jackfield.testing.tool_parsers import Call, ToolParserContract
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
