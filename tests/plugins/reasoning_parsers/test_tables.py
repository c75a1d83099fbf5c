"""Reasoning parsers that a user writes as a data file."""

from __future__ import annotations

from pathlib import Path

import pytest

from jackfield.config.plan import PluginSource
from jackfield.contracts.text import Content, ParserContext, Reasoning
from jackfield.errors import PluginError
from jackfield.registry import Registry
from jackfield.text.events import merge_events

MINE = """
[mine]
start = "<ponder>"
end = ["</ponder>", "</pondering>"]
implied = true
aliases = ["also_mine"]

[messages]
shape = "channels"
opens = "<|say|>"
marks = "<|:|>"
ends = "<|over|>"
thought_header = "to me"
answer_header = "to you"
start = "<|say|>to me<|:|>"
end = "<|over|>"
"""


def registry(path: Path, text: str) -> Registry:
    path.write_text(text)
    return Registry([PluginSource("reasoning_parsers", str(path))])


def test_a_table_is_a_parser(tmp_path: Path) -> None:
    found = registry(tmp_path / "mine.toml", MINE)
    for name, text in (
        ("mine", "Hm.\n</pondering>\nHello."),
        ("also-mine", "<ponder>Hm.</ponder>Hello."),
        ("messages", "<|say|>to me<|:|>Hm.<|over|><|say|>to you<|:|>Hello.<|over|>"),
    ):
        parser = found.load("reasoning_parsers", name)(ParserContext())
        events = merge_events([*parser.feed(text), *parser.finish()])
        assert events == [Reasoning("Hm."), Content("Hello.")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no table"),
        ("x = 1", "x is not a table"),
        ("[Mine]\nend = 'x'", "small letters"),
        ("[mine]\nend = 'x'\nstrat = 'y'", "no key strat; keys of the shape tags: .*start"),
        ("[mine]\nend = ''", "end must be a string or a list of strings, none empty"),
        ("[mine]\nend = 'x'\nimplied = 1", "implied must be a boolean"),
        ("[mine]\nshape = 'round'", "'round' and not one of tags, channels"),
        ("[mine]\nshape = 'channels'\nopens = 'x'", "the shape channels needs marks"),
        ("[mine]\nend = 'x'\ndetect = 1", "detect must be a table"),
        ("[mine]\nend = 'x'\nsuffix_pattern = '('", "suffix_pattern is no regular expression"),
        ("[mine", "cannot read the reasoning formats"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        registry(tmp_path / "mine.toml", text).load("reasoning_parsers", "mine")
    assert "--reasoning-parser-plugin" in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_missing_file_and_a_kind_without_tables(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no such file"):
        missing = PluginSource("reasoning_parsers", str(tmp_path / "none.toml"))
        Registry([missing]).load("reasoning_parsers", "x")
    (tmp_path / "s.toml").write_text("[x]")
    with pytest.raises(PluginError, match="not written as tables"):
        source = PluginSource("schedulers", str(tmp_path / "s.toml"))
        Registry([source]).load("schedulers", "x")
