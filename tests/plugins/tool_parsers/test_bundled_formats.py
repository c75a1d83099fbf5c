"""The tables themselves: complete, cited, their examples read, found by their names."""

from __future__ import annotations

import pytest
from tests.plugins.tool_parsers.renderers import FAMILIES

from jackfield.contracts.text import CheckpointText, Content, Event, ParserContext
from jackfield.registry import Registry
from jackfield.testing.tool_parsers import Call, calls_of
from jackfield.text.events import merge_events
from jackfield_tool_parsers import formats
from jackfield_tool_parsers.auto import AutoToolParser

FORMATS = formats.all_formats()
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("get_weather", "get_time")
]
ONE_CALL = ("gigachat3",)
VLLM = """
apertus cohere_command3 cohere_command4 deepseek_v3 deepseek_v31 deepseek_v32 deepseek_v4
deepseek_v41 dots ernie45 functiongemma gemma4 gigachat3 glm45 glm47 ling3 poolside_v1 granite
granite4 granite-20b-fc hermes qwen3_json hf hunyuan_a13b hy_v3 hy_v4 inkling internlm jamba
k2_horizon kimi_k2 kimi_k3 lfm2 llama3_json llama4_json llama4_pythonic pythonic longcat mimo
minicpm5 minimax_m2 minimax_m3 mistral muse_glimmer olmo3 openai phi4_mini_json plamo3 qwen3_coder
qwen3_xml seed_oss solar_open2 step3 step3p5 xlam muse
""".split()
SGLANG = """
apertus2509 cohere_command4 deepseekv3 deepseekv31 deepseekv32 deepseekv4 deepseekv41 dots glm glm45
glm47 gpt-oss k2_horizon kimi_k2 kimi_k3 lfm2 ling3 llama3 mimo minicpm5 mistral muse poolside_v1
pythonic qwen qwen25 qwen3_coder spark25 step3 step3p5 minimax-m2 minimax-m3 trinity interns1 hermes
hunyuan gigachat3 gigachat35 gemma4 inkling iquest_q1 response_template
""".split()


def parse(name: str, text: str) -> list[Event]:
    parser = getattr(formats, name)(ParserContext(tools=TOOLS))
    events = [event for character in text for event in parser.feed(character)]
    return merge_events([*events, *parser.finish()])


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_is_read(name: str) -> None:
    wanted = [Call("get_weather", {"city": "Paris"}), Call("get_time", {})]
    wanted = wanted[:1] if name in ONE_CALL else wanted
    events = parse(name, FORMATS[name].example)
    assert calls_of(events) == wanted
    assert not [event for event in events if isinstance(event, Content)]
    around = parse(name, "Hello.\n" + FORMATS[name].example + "\nBye")
    assert calls_of(around) == wanted
    assert around[0] in (Content("Hello.\n"), Content("Hello."))
    assert around[-1] in (Content("\nBye"), Content("Bye"))


def test_every_format_says_whose_it_is_and_where_that_is_from() -> None:
    for each in FORMATS.values():
        assert each.family.endswith(".") and all(": " in one or "/" in one for one in each.sources)
        assert each.sources and each.example


def test_every_format_goes_through_the_kit() -> None:
    assert {each.name for each in FORMATS.values()} <= FAMILIES.keys()


@pytest.mark.parametrize("name", sorted({*VLLM, *SGLANG}))
def test_the_names_of_other_engines_are_known(name: str) -> None:
    found = Registry(bundled_only=True).load("tool_parsers", name)
    assert found.name == name.replace("-", "_")


def test_every_name_of_a_table_is_an_entry_point() -> None:
    names = {name for each in FORMATS.values() for name in (each.name, *each.aliases)}
    installed = {entry.name for entry in Registry(bundled_only=True).list("tool_parsers")}
    assert names | {"auto", "hf", "response_template"} == installed


def test_markers_are_the_tokens_of_the_format() -> None:
    assert {"[TOOL_CALLS]", "[ARGS]"} <= formats.mistral.markers
    assert {"<|tool_call>", "<tool_call|>", '<|"|>'} <= formats.gemma4.markers
    assert "<|channel|>" in formats.openai.markers


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = formats.nothing


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"granite4", "jamba", "xlam", "pythonic"}))
def test_auto_knows_a_template_that_shows_the_format(name: str) -> None:
    detect = FORMATS[name].detect
    template = "{# calls #}" + FORMATS[name].example + " ".join(detect.template)
    chosen = AutoToolParser.choose(CheckpointText(chat_template=template))
    assert chosen is not None
    assert calls_of(parse(chosen, FORMATS[name].example)) == calls_of(
        parse(name, FORMATS[name].example)
    )


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        (architecture, each.name)
        for each in FORMATS.values()
        for architecture in each.detect.architectures
    ],
)
def test_auto_knows_an_architecture(architecture: str, name: str) -> None:
    assert AutoToolParser.choose(CheckpointText(architectures=(architecture,))) == name


def test_auto_says_nothing_of_what_it_does_not_know() -> None:
    assert AutoToolParser.choose(CheckpointText(chat_template="{{ messages }}")) is None
