"""What models really write: forgotten ends, other forms, values that look like markers."""

# ruff: noqa: E501, RUF001

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jackfield.contracts.text import Content, Event, ParserContext, ToolCallArguments, ToolCallStart
from jackfield.testing.tool_parsers import Call, assert_well_formed, calls_of, content_of
from jackfield.text.events import merge_events
from jackfield_tool_parsers import formats, tool_parsers_from_toml

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {
                    "s": {"type": "string"},
                    "n": {"type": "integer"},
                    "o": {"type": "object"},
                    "u": {"enum": ["a", "b"]},
                },
            },
        },
    }
]


def parse(name: str, text: str) -> list[Event]:
    """Fed character by character; the kit holds that any other split gives the same."""
    parser = getattr(formats, name)(ParserContext(tools=TOOLS))
    events = [event for character in text for event in parser.feed(character)]
    merged = merge_events([*events, *parser.finish()])
    assert_well_formed(merged)
    return merged


READ: list[tuple[str, str, list[dict[str, Any]], str]] = [
    # A call ends with its text, with what should have ended another one, or with the next call.
    ("qwen3_coder", "<tool_call>\n<function=f>\n<parameter=s>\nx", [{"s": "x"}], ""),
    ("qwen3_coder", "<tool_call>\n<function=f>\n<parameter=n>\n1", [{"n": 1}], ""),
    ("qwen3_coder", '<tool_call><function=f><parameter=o>{"a": [1', [{"o": {"a": [1]}}], ""),
    ("qwen3_coder", "<function=f><parameter=s>x</parameter></tool_call>", [{"s": "x"}], ""),
    ("qwen3_coder", "<function=f></function>", [{}], ""),
    ("qwen3_coder", "<tool_call><function=f", [], "<tool_call><function=f"),
    ("qwen3_coder", "Write <function=f> here", [], "Write <function=f> here"),
    ("qwen3_coder", "<function=f><parameter=u>\n\n a\n</parameter></function>", [{"u": "a"}], ""),
    (
        "qwen3_coder",
        '<function=f><parameter=o>{"a": "</parameter>"}</parameter></function>',
        [{"o": {"a": "</parameter>"}}],
        "",
    ),
    ("qwen3_coder", "<function=f><parameter=s>\n\nx\n\n</parameter>", [{"s": "\nx\n"}], ""),
    (
        "qwen3_coder",
        "<tool_call>\n<function=f>\n<parameter=s>\nx\n<parameter=n>\n1\n</function>\n</tool_call>",
        [{"s": "x", "n": 1}],
        "",
    ),
    (
        "qwen3_coder",
        "<tool_call>\n<function=f>\n<parameter=s>\n</function> <parameter=\n</function>\n</tool_call>",
        [{"s": "</function> <parameter="}],
        "",
    ),
    ("glm45", "<tool_call>f</tool_call>", [{}], ""),
    ("glm45", "<tool_call>f\n<arg_key>s</arg_key> <arg_value>1</arg_value>", [{"s": "1"}], ""),
    ("glm45", "<tool_call>what is this</tool_call>", [], "<tool_call>what is this</tool_call>"),
    (
        "minimax_m2",
        '<minimax:tool_call><invoke name="f"><parameter name="n">1</parameter><invoke name="f">'
        "</invoke></minimax:tool_call>",
        [{"n": 1}, {}],
        "",
    ),
    (
        "deepseek_v32",
        '<｜DSML｜function_calls><｜DSML｜invoke name="f"><｜DSML｜parameter name="s" '
        'string="false">12</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜function_calls>',
        [{"s": 12}],
        "",
    ),
    (
        "kimi_k3",
        '<|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|open|>argument key="n" type="string"'
        "<|sep|>4<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>",
        [{"n": 4}],
        "",
    ),
    (
        "k2_horizon",
        "<ifm|tool_calls><ifm|tool_call>g<ifm|arg_key>a</ifm|arg_key><ifm|arg_type>string"
        "</ifm|arg_type><ifm|arg_value>12</ifm|arg_value></ifm|tool_call></ifm|tool_calls>",
        [{"a": "12"}],
        "",
    ),
    (
        "k2_horizon",
        '<ifm|tool_call>[{"name": "f", "arguments": {"n": 1}}, {"name": "f"}]</ifm|tool_call>',
        [{"n": 1}, {}],
        "",
    ),
    # Other forms of one family.
    ("apertus", '<|tools_prefix|>[{"f": {"n": 1}, "g": {}}]<|tools_suffix|>', [{"n": 1}, {}], ""),
    ("apertus", '<|tools_prefix|>[{"f": {"n": 1} oops', [{"n": 1}], " oops"),
    ("apertus", '<|tools_prefix|>[{"f": {"n": 1}, }]<|tools_suffix|>', [{"n": 1}], ""),
    ("apertus", "<|tools_prefix|>[{}]<|tools_suffix|>", [], "<|tools_prefix|>[{}]<|tools_suffix|>"),
    ("apertus", r'<|tools_prefix|>[{"f\ude00": {}}]', [], r'<|tools_prefix|>[{"f\ude00": {}}]'),
    ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {"n": 1}}, {"name": "f"}]', [{"n": 1}, {}], ""),
    ("mistral", '[TOOL_CALLS]f{"n": 1}', [{"n": 1}], ""),
    ("mistral", '[TOOL_CALLS]f[CALL_ID]abc123[ARGS]{"n": 1}', [{"n": 1}], ""),
    ("mistral", "[TOOL_CALLS] is what I write", [], "[TOOL_CALLS] is what I write"),
    ("granite", '<tool_call>[{"name": "f", "arguments": {}}]', [{}], ""),
    ("gigachat3", 'function call<|role_sep|>\n{"name": "f", "arguments": {"n": 1}}</s>', [{"n": 1}], ""),
    ("xlam", '```json\n[{"name": "f", "arguments": {}}]\n```', [{}], ""),
    ("xlam", "```json\n[1, 2]\n```", [], "```json\n[1, 2]\n```"),
    ("kimi_k2", '<|tool_call_begin|>f<|tool_call_argument_begin|>{"n": 1}', [{"n": 1}], ""),
    ("kimi_k2", "<|tool_call_begin|>f<|tool_call_end|>\n\nSo", [{}], "\n\nSo"),
    ("deepseek_v3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```\n{}```", [{}], ""),
    ("deepseek_v3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```\nno", [{}], "\nno"),
    ("openai", ' to=functions.f<|channel|>commentary json<|message|>{"n": 1}<|call|>', [{"n": 1}], ""),
    ("openai", "<|channel|>final<|message|>Hello<|end|>", [], "Hello"),
    ("openai", "<|channel|>commentary to=functions. json<|message|>{}", [], "{}"),
    (
        "openai",
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.f"
        "<|channel|>commentary<|message|>{}",
        [{}],
        "I look.",
    ),
    # Without a marker only a tool of the request is called.
    ("llama3_json", '{"name": "other", "parameters": {}}', [], '{"name": "other", "parameters": {}}'),
    ("llama3_json", '{"title": {"a": 1}}', [], '{"title": {"a": 1}}'),
    ("llama3_json", 'It is\n{"name": "f", "parameters": {"n": 1}}', [{"n": 1}], "It is\n"),
    ("llama3_json", 'So {"name": "f", "parameters": {}}', [], 'So {"name": "f", "parameters": {}}'),
    ("pythonic", "[1] says so", [], "[1] says so"),
    ("pythonic", "[other(a=1)]", [], "[other(a=1)]"),
    ("pythonic", "[f(1)]", [], "[f(1)]"),
    # Literals of Python.
    ("pythonic", r"[f(s='it\'s \x41 \u4f60 \ud83d\ude00 \n')]", [{"s": "it's A \u4f60 \U0001f600 \n"}], ""),
    ("pythonic", r"[f(s='\ud83d')]", [{"s": "\ufffd"}], ""),
    ("pythonic", '[f(s="""a "b"\nc""", n=-1)]', [{"s": 'a "b"\nc', "n": -1}], ""),
    ("pythonic", "[f(s='a' \"b\", o={'k': (1, 2,), 'l': None},)]", [{"s": "ab", "o": {"k": [1, 2], "l": None}}], ""),
    ("pythonic", "[f(n=1_000, o={1: 0x10, 'e': 1e3})]", [{"n": 1000, "o": {"1": 16, "e": 1000.0}}], ""),
    ("pythonic", '[f(content-type="a", $top=1)]', [{"content-type": "a", "$top": 1}], ""),
    ("pythonic", r"[f(s=r'\d')]", [{"s": "\\d"}], ""),
    ("pythonic", "[f(s=red)]", [{"s": "red"}], ""),
    ("pythonic", "[f(n=1, s=open('x').read())]", [{"n": 1, "s": "open"}], "('x').read())]"),
    ("pythonic", "[f(n=1, s='ab", [{"n": 1, "s": "ab"}], ""),
    ("lfm2", "<|tool_call_start|>[g(a=[True, {'b': 'c'}])]<|tool_call_end|>", [{"a": [True, {"b": "c"}]}], ""),
    ("olmo3", "Hi\n<function_calls>\ng(a=1)\nh()\n</function_calls>", [{"a": 1}, {}], "Hi\n"),
    # Gemma's notation.
    ("gemma4", '<|tool_call>call:f{s:<|"|>a,b:{c}<|"|>,o:{k:[1,<|"|>x<|"|>],t:true}}<tool_call|>',
     [{"s": "a,b:{c}", "o": {"k": [1, "x"], "t": True}}], ""),
    ("gemma4", "<|tool_call>call:f{u:some words,n:1.5}<tool_call|>", [{"u": "some words", "n": 1.5}], ""),
    ("gemma4", '<|tool_call>call:f{s:<|"|>a', [{"s": "a"}], ""),
    ("gemma4", "<|tool_call>nothing", [], "<|tool_call>nothing"),
    # Tags within tags.
    ("minimax_m3", ']<]minimax[>[<tool_call>]<]minimax[>[<invoke name="g">]<]minimax[>[<a>'
     "]<]minimax[>[<item>1]<]minimax[>[</item>]<]minimax[>[<item>x]<]minimax[>[</item>"
     "]<]minimax[>[</a>]<]minimax[>[<b>]<]minimax[>[<c>2]<]minimax[>[</c>]<]minimax[>[</b>"
     "]<]minimax[>[</invoke>", [{"a": [1, "x"], "b": {"c": 2}}], ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "arguments", "content"), READ)
def test_calls_and_content(
    name: str, text: str, arguments: list[dict[str, Any]], content: str
) -> None:
    events = parse(name, text)
    assert [call.arguments for call in calls_of(events)] == arguments
    assert content_of(events) == content


def test_kimi_k2s_own_ids_are_kept_and_none_comes_twice() -> None:
    called = "<|tool_call_begin|>{}<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
    written = ("functions.f:3", "f", "functions.g:4", "functions.f:3")
    events = parse("kimi_k2", "".join(map(called.format, written)))
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert [each.name for each in starts] == ["f", "f", "g", "f"]
    assert [each.id for each in starts] == ["functions.f:3", "", "functions.g:4", ""]


def test_mistrals_ids_are_such_as_its_templates_take() -> None:
    def ids(prompt: str) -> list[str]:
        parser = formats.mistral(ParserContext(tools=TOOLS, prompt_suffix=prompt))
        text = "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]f{}[TOOL_CALLS]f[CALL_ID]aB3456789[ARGS]{}"
        return [each.id for each in parser.feed(text) if isinstance(each, ToolCallStart)]

    first, second = ids("a turn"), ids("the next turn")
    assert first[2] == second[2] == "aB3456789"
    assert len({*first, *second}) == 5 and all(re.fullmatch("[a-zA-Z0-9]{9}", i) for i in first)


def test_a_table_without_a_length_of_ids_takes_any(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        '[mine]\nshape = "named"\nfamily = "Mine."\n'
        'call_open = "<<call>>"\nname_rest = "<<id>>"\nname_end = "<<with>>"\n'
    )
    (mine,) = tool_parsers_from_toml(table, __name__)
    events = mine(ParserContext(tools=TOOLS)).feed("<<call>>f<<id>>c-17<<with>>{}")
    assert events[0] == ToolCallStart(0, "f", "c-17")


def test_strings_stream_as_they_arrive() -> None:
    parser = formats.qwen3_coder(ParserContext(tools=TOOLS))
    events = parser.feed('<tool_call>\n<function=f>\n<parameter=s>\nsome "text')
    assert events[0] == ToolCallStart(0, "f")
    assert merge_events(events[1:]) == [ToolCallArguments(0, '{"s": "some \\"text')]
    assert parser.feed(" more\n") == [ToolCallArguments(0, " more")]


def test_a_python_string_streams_as_it_arrives() -> None:
    parser = formats.pythonic(ParserContext(tools=TOOLS))
    events = parser.feed("[f(s='some")
    assert merge_events(events) == [ToolCallStart(0, "f"), ToolCallArguments(0, '{"s": "some')]


def test_nothing_is_run() -> None:
    text = "[f(s=__import__('os').system('false'))]"
    assert content_of(parse("pythonic", text)).startswith("('os').system")


def test_a_broken_call_leaves_the_next_one_whole() -> None:
    text = (
        '<tool_call>{"name": f}</tool_call>\n<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    )
    events = parse("hermes", text)
    assert calls_of(events) == [Call("f", {})]
    assert events[0] == Content('<tool_call>{"name": f}</tool_call>\n')


def test_deep_nesting_ends_a_call_and_not_the_parser() -> None:
    for name, text in (
        ("pythonic", "[f(o=" + "[" * 500),
        ("gemma4", "<|tool_call>call:f{o:" + "{a:" * 500),
        ("hermes", '<tool_call>{"name": "f", "arguments": ' + '{"a":' * 500),
    ):
        assert len(calls_of(parse(name, text))) == 1
