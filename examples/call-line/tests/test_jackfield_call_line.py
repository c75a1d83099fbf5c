"""The laws of a tool parser; `render` says how a model writes calls."""

import json

from jackfield_call_line.plugin import CallLineParser

from jackfield.contracts.text import ParserContext, ToolCallStart
from jackfield.testing import ToolParserContract


class TestCallLineParser(ToolParserContract):
    parser = CallLineParser

    def render(self, calls):
        return "".join(f"CALL {call.name} {json.dumps(call.arguments)}\n" for call in calls)


def test_the_mark_is_an_option():
    parser = CallLineParser(ParserContext(), options=CallLineParser.Options(mark="@"))
    events = [*parser.feed('CALL f {}\n@g {"x": 1}\n'), *parser.finish()]
    assert [event.name for event in events if isinstance(event, ToolCallStart)] == ["g"]
