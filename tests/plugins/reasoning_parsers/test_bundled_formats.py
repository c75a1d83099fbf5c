"""Every parser that is a table, by the kit: with its tag in the output and in the prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from jackfield.contracts.text import (
    CheckpointText,
    Content,
    ParserContext,
    Reasoning,
    ReasoningParser,
)
from jackfield.registry import Registry
from jackfield.testing.reasoning_parsers import ReasoningParserContract
from jackfield.text.events import merge_events
from jackfield_reasoning_parsers.bundled import FORMATS
from jackfield_reasoning_parsers.channels import Channels
from jackfield_reasoning_parsers.table import ReasoningFormat
from jackfield_reasoning_parsers.tag_pair import TagPair

VLLM = """
apertus2509 cohere_command3 cohere_command4 deepseek_r1 deepseek_v3 deepseek_v4 deepseek_v41 ernie45
gemma4 glm45 glm47 granite granite_thinking_parser hf holo2 hunyuan_a13b hy_v3 hy_v4 identity
inkling k2_horizon kimi_k2 kimi_k3 ling3 mimo minicpmv minimax_m2 minimax_m2_append_think minimax_m3
mistral muse_glimmer nemotron_v3 olmo3 openai_gptoss plamo3 poolside_v1 qwen3 seed_oss solar_open2
step3 step3p5
""".split()
SGLANG = """
deepseek-r1 deepseek-v3 deepseek-v4 deepseek-v41 hunyuan gpt-oss kimi muse qwen3-thinking minimax
minimax-append-think minimax-m3 nanbeige nemotron_3 interns1 iquest_q1 gigachat35 response_template
""".split()
SUFFIX = CheckpointText(chat_template="{{ '<think:6124c78e>' }}")


def parser_named(name: str) -> type[ReasoningParser]:
    found: type[ReasoningParser] = Registry().load("reasoning_parsers", name)
    return found


def tags_of(each: ReasoningFormat) -> tuple[str, ...]:
    form = each.form
    if isinstance(form, Channels):
        return (*form.opens, *form.marks, *form.ends)
    return (*form.start, *form.end, *form.interrupts, *form.answer_start, *form.answer_end)


def switched_on(form: TagPair) -> dict[str, object]:
    return {} if form.thinks else {form.switches[0]: True}


# The cost is the scanners', which formats share: it is measured once for each way through them.
MEASURED = ("deepseek_r1", "qwen3", "kimi_k3", "hunyuan_a13b", "openai_gptoss", "inkling")


def kit(each: ReasoningFormat, contexts: Sequence[ParserContext], example: str) -> type:
    def render(self: ReasoningParserContract, reasoning: str, content: str) -> str:
        before, between, after = re.split(r"Hm\.|Hello\.", example)
        return before + reasoning + between + content + after

    said: dict[str, object] = {
        "parser": parser_named(each.name),
        "contexts": contexts,
        "tags": tags_of(each),
        "render": render,
        "__module__": __name__,
    }
    if each.name not in MEASURED:
        said["test_cost_is_linear"] = None
    return type("Kit", (ReasoningParserContract,), said)


def kits() -> dict[str, type]:
    """A kit for each format that differs from all before it in more than its name."""
    made: dict[str, type] = {}
    known: list[tuple[object, str]] = []
    for each in FORMATS:
        form, title = each.form, each.name.title().replace("_", "")
        if (form, each.example) in known:
            continue
        known.append((form, each.example))
        if isinstance(form, Channels):
            prompt = ParserContext(prompt_suffix="user\n" + form.prompt_opens)
            made[f"Test{title}"] = kit(each, (ParserContext(), prompt), each.example)
            continue
        plain = ParserContext(template_kwargs=switched_on(form))
        start = form.start[0].replace("{suffix}", "")
        opened = [ParserContext(prompt_suffix=f"user\n{start}{end}") for end in ("", "\n")]
        rest = each.example.removeprefix(start).removeprefix("\n")
        if rest == each.example:
            made[f"Test{title}"] = kit(each, (plain, *opened), each.example)
        else:
            made[f"Test{title}"] = kit(each, (plain,), each.example)
            made[f"Test{title}OpenedByTheTemplate"] = kit(each, opened, rest)
    return made


globals().update(kits())


@pytest.mark.parametrize("each", FORMATS, ids=lambda each: each.name)
def test_a_table_says_what_it_is_and_where_its_facts_are_from(each: ReasoningFormat) -> None:
    assert each.family and each.sources and each.example
    for alias in each.aliases:
        parser = parser_named(alias)
        form = getattr(parser, "tags", None) or getattr(parser, "channels", None)
        assert parser.name == alias and form == each.form


@pytest.mark.parametrize(
    "each", [each for each in FORMATS if isinstance(each.form, TagPair)], ids=lambda each: each.name
)
def test_where_the_template_closed_the_thought_all_is_content(each: ReasoningFormat) -> None:
    form = each.form
    assert isinstance(form, TagPair)
    context = ParserContext(prompt_suffix=form.end[0].replace("{suffix}", "") + "\n\n")
    parser = parser_named(each.name)(context)
    assert merge_events([*parser.feed("Hello."), *parser.finish()]) == [Content("Hello.")]


@pytest.mark.parametrize("name", [*VLLM, *SGLANG])
def test_the_names_of_other_engines_are_known(name: str) -> None:
    assert parser_named(name).name == name.replace("-", "_")


def test_a_suffix_is_what_the_chat_template_says() -> None:
    context = ParserContext(
        template_kwargs={"reasoning_effort": "high"},
        checkpoint=SUFFIX,
    )
    for name in ("hy_v3", "hy-v4"):
        parser = parser_named(name)(context)
        events = [*parser.feed("Hm.</think:6124c78e>Hello."), *parser.finish()]
        assert merge_events(events) == [Reasoning("Hm."), Content("Hello.")]
