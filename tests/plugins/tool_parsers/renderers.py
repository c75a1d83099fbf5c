"""How models of each family write calls, spelled out without the parsers' tables."""

# Some tokens have wide bars.
# ruff: noqa: RUF001

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from jackfield.testing.tool_parsers import KEYS, TEXT, Call, arguments_of, without

Render = Callable[[Sequence[Call]], str]


ANYTHING = arguments_of()


@dataclass(frozen=True)
class Family:
    """A renderer and what it can carry."""

    render: Render
    arguments: st.SearchStrategy[dict[str, Any]] = ANYTHING


def j(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def text(value: object) -> str:
    return value if isinstance(value, str) else j(value)


def each(
    one: Callable[[int, Call], str], head: str = "", tail: str = "", between: str = ""
) -> Render:
    """``one`` call after the other, between ``head`` and ``tail``."""

    def render(calls: Sequence[Call]) -> str:
        return head + between.join(one(index, call) for index, call in enumerate(calls)) + tail

    return render


def named(call: Call, arguments: str = "arguments") -> str:
    return j({"name": call.name, arguments: call.arguments})


# --- JSON ------------------------------------------------------------------------------


def hermes(tag: str = "tool_call") -> Render:
    return each(lambda _, call: f"<{tag}>\n{named(call)}\n</{tag}>", between="\n")


JSON = {
    "hermes": hermes(),
    "qwen3_json": hermes(),
    "granite4": hermes(),
    "longcat": hermes("longcat_tool_call"),
    "ernie45": each(lambda _, call: f"<tool_call>\n{named(call)}\n</tool_call>\n", between="\n"),
    "llama3_json": each(lambda _, call: named(call, "parameters"), between="; "),
    "llama4_json": each(
        lambda _, call: named(call, "parameters"), head="<|python_tag|>", between=";"
    ),
    "granite": each(lambda _, call: named(call), "<|tool_call|>[", "]", ", "),
    "granite_20b_fc": each(lambda _, call: f"<function_call> {named(call)}"),
    "internlm": each(
        lambda _, call: f"<|action_start|><|plugin|>\n{named(call, 'parameters')}<|action_end|>",
        between="\n",
    ),
    "gigachat3": each(lambda _, call: f"<|function_call|>{named(call)}"),
    "inkling": each(
        lambda _, call: (
            f"<|message_model|>{call.name}<|content_invoke_tool_json|>"
            f"{j({'args': call.arguments, 'name': call.name})}<|end_message|>"
        )
    ),
    "hunyuan_a13b": each(lambda _, call: named(call), "<tool_calls>[", "]</tool_calls>", ", "),
    "jamba": each(lambda _, call: named(call), "<tool_calls>[\n  ", "\n]</tool_calls>", ",\n  "),
    "apertus": each(
        lambda _, call: j({call.name: call.arguments}),
        "<|tools_prefix|>[",
        "]<|tools_suffix|>",
        ", ",
    ),
    "cohere_command3": each(
        lambda index, call: j(
            {"tool_call_id": str(index), "tool_name": call.name, "parameters": call.arguments}
        ),
        "<|START_ACTION|>[\n    ",
        "\n]<|END_ACTION|>",
        ",\n    ",
    ),
    "phi4_mini_json": each(lambda _, call: named(call), "functools[", "]", ", "),
    "xlam": each(lambda _, call: named(call), "[", "]", ", "),
    # --- a name between special tokens, then JSON
    "deepseek_v3": each(
        lambda _, call: (
            f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call.name}\n```json\n"
            f"{j(call.arguments)}\n```<｜tool▁call▁end｜>"
        ),
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "\n",
    ),
    "deepseek_v31": each(
        lambda _, call: (
            f"<｜tool▁call▁begin｜>{call.name}<｜tool▁sep｜>{j(call.arguments)}<｜tool▁call▁end｜>"
        ),
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
    ),
    "kimi_k2": each(
        lambda index, call: (
            f"<|tool_call_begin|>functions.{call.name}:{index}<|tool_call_argument_begin|>"
            f"{j(call.arguments)}<|tool_call_end|>"
        ),
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
    ),
    "mistral": each(lambda _, call: f"[TOOL_CALLS]{call.name}[ARGS]{j(call.arguments)}"),
    "plamo3": each(
        lambda _, call: (
            f"<|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>{call.name}"
            "<|plamo:end_tool_name:plamo|><|plamo:begin_tool_arguments:plamo|><|plamo:msg|>"
            f"{j(call.arguments)}<|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|>"
        ),
        "<|plamo:begin_tool_requests:plamo|>",
        "<|plamo:end_tool_requests:plamo|>",
    ),
    "openai": each(
        lambda _, call: (
            f"<|channel|>commentary to=functions.{call.name} <|constrain|>json<|message|>"
            f"{j(call.arguments)}<|call|>"
        ),
        between="<|start|>assistant",
    ),
}

# --- texts between tags ----------------------------------------------------------------


def tagged(
    parameter: Callable[[str, object], str], one: Callable[[int, Call, str], str]
) -> Callable[[int, Call], str]:
    """A call whose parameters are written one by one."""

    def render(index: int, call: Call) -> str:
        return one(
            index, call, "".join(parameter(key, value) for key, value in call.arguments.items())
        )

    return render


def invokes(prefix: str, section: str, begin: str = "<", space: str = "") -> Render:
    """``<invoke name=...>`` and ``<parameter name=...>``, with a prefix to each tag."""
    tag, end = f"<{prefix}{space}", f"</{prefix}{space}"
    return each(
        tagged(
            lambda key, value: f'{tag}parameter name="{key}">{text(value)}{end}parameter>\n',
            lambda _, call, inside: f'{tag}invoke name="{call.name}">\n{inside}{end}invoke>\n',
        ),
        f"<{section}>\n",
        f"</{section}>",
    )


def dsml(token: str, section: str, space: str = "") -> Render:
    tag, end = f"<{token}{space}", f"</{token}{space}"
    return each(
        tagged(
            lambda key, value: (
                f'{tag}parameter name="{key}" string="{j(isinstance(value, str))}">'
                f"{text(value)}{end}parameter>\n"
            ),
            lambda _, call, inside: f'{tag}invoke name="{call.name}">\n{inside}{end}invoke>\n',
        ),
        f"{tag}{section}>\n",
        f"{end}{section}>",
    )


def functions(tag: str, newline: str) -> Render:
    return each(
        tagged(
            lambda key, value: f"<parameter={key}>{newline}{text(value)}{newline}</parameter>\n",
            lambda _, call, inside: (
                f"<{tag}>\n<function={call.name}>\n{inside}</function>\n</{tag}>"
            ),
        ),
        between="\n",
    )


def pairs(
    prefix: str = "", newline: str = "\n", suffix: str = "", tag: str = "tool_call", sep: str = ""
) -> Callable[[int, Call], str]:
    """``<arg_key>`` and ``<arg_value>``."""
    return tagged(
        lambda key, value: (
            f"<{prefix}arg_key{suffix}>{key}</{prefix}arg_key{suffix}>{newline}"
            f"<{prefix}arg_value{suffix}>{text(value)}</{prefix}arg_value{suffix}>{newline}"
        ),
        lambda _, call, inside: (
            f"<{prefix}{tag}{suffix}>{call.name}{sep}{newline}{inside}</{prefix}{tag}{suffix}>"
        ),
    )


def kimi_type(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


PARAMETERS: dict[str, tuple[Render, tuple[str, ...]]] = {
    "qwen3_coder": (functions("tool_call", "\n"), ("</parameter>",)),
    "seed_oss": (functions("seed:tool_call", ""), ("</parameter>",)),
    "glm45": (each(pairs(), between="\n"), ("</arg_value>",)),
    "glm47": (each(pairs(newline="")), ("</arg_value>",)),
    "iquest_q1": (each(pairs(newline="", tag="iquest_tool_call")), ("</arg_value>",)),
    "hy_v3": (
        each(pairs(sep="<tool_sep>"), "<tool_calls>\n", "\n</tool_calls>", "\n"),
        ("</arg_value>",),
    ),
    "hy_v4": (
        each(
            pairs(newline="", suffix=":6124c78e"),
            "<tool_calls:6124c78e>",
            "</tool_calls:6124c78e>",
        ),
        ("</arg_value:6124c78e>",),
    ),
    "k2_horizon": (
        each(pairs("ifm|"), "<ifm|tool_calls>\n", "\n</ifm|tool_calls>", "\n"),
        ("</ifm|arg_value>",),
    ),
    "minimax_m2": (invokes("", "minimax:tool_call"), ("</parameter>",)),
    "dots": (invokes("", "dots_function_call"), ("</parameter>",)),
    "muse_glimmer": (invokes("atem:", "atem:function_calls"), ("</atem:parameter>",)),
    "deepseek_v32": (dsml("｜DSML｜", "function_calls"), ("</｜DSML｜parameter>",)),
    "deepseek_v4": (dsml("｜DSML｜", "tool_calls"), ("</｜DSML｜parameter>",)),
    "deepseek_v41": (dsml("｜DSML｜", "calls", " "), ("</｜DSML｜ parameter>",)),
    "gigachat35": (dsml("｜GCML｜", "tool_calls"), ("</｜GCML｜parameter>",)),
    "step3": (
        each(
            tagged(
                lambda key, value: (
                    f'<steptml:parameter name="{key}">{text(value)}</steptml:parameter>\n'
                ),
                lambda _, call, inside: (
                    "<｜tool_call_begin｜>function<｜tool_sep｜>"
                    f'<steptml:invoke name="{call.name}">\n{inside}</steptml:invoke>'
                    "<｜tool_call_end｜>"
                ),
            ),
            "<｜tool_calls_begin｜>\n",
            "\n<｜tool_calls_end｜>",
            "\n",
        ),
        ("</steptml:parameter>",),
    ),
    "solar_open2": (
        each(
            tagged(
                lambda key, value: (
                    f"<|tool_arg:start|>{key}<|tool_arg:value|>{text(value)}<|tool_arg:end|>\n"
                ),
                lambda _, call, inside: (
                    f"<|tool_call:start|>{call.name}\n{inside}<|tool_call:end|>"
                ),
            ),
            between="\n",
        ),
        ("<|tool_arg:end|>",),
    ),
    "minicpm5": (
        each(
            tagged(
                lambda key, value: f'<param name="{key}"><![CDATA[{text(value)}]]></param>',
                lambda _, call, inside: f'<function name="{call.name}">{inside}</function>',
            )
        ),
        ("</param>",),
    ),
    "kimi_k3": (
        each(
            tagged(
                lambda key, value: (
                    f'<|open|>argument key="{key}" type="{kimi_type(value)}"<|sep|>{text(value)}'
                    "<|close|>argument<|sep|>"
                ),
                lambda index, call, inside: (
                    f'<|open|>call tool="{call.name}" index="{index + 1}"<|sep|>{inside}'
                    "<|close|>call<|sep|>"
                ),
            ),
            "<|open|>tools<|sep|>",
            "<|close|>tools<|sep|>",
        ),
        ("<|close|>",),
    ),
}

# --- literals --------------------------------------------------------------------------


def literal(value: object) -> str:
    return repr(value)


def python_call(_: int, call: Call) -> str:
    arguments = ", ".join(f"{key}={literal(value)}" for key, value in call.arguments.items())
    return f"{call.name}({arguments})"


def fields(quote: str) -> Callable[[int, Call], str]:
    def value(each: object) -> str:
        if isinstance(each, str):
            return f"{quote}{each}{quote}"
        if isinstance(each, list):
            return "[" + ",".join(map(value, each)) + "]"
        return members(each) if isinstance(each, dict) else j(each)

    def members(each: dict[str, object]) -> str:
        return "{" + ",".join(f"{key}:{value(inner)}" for key, inner in each.items()) + "}"

    return lambda _, call: f"call:{call.name}{members(call.arguments)}"


def gemma(start: str, end: str, quote: str) -> Render:
    one = fields(quote)
    return each(lambda index, call: f"{start}{one(index, call)}{end}")


NS = "]<]minimax[>["


def nested_value(value: object) -> str:
    if isinstance(value, dict):
        return "".join(
            f"{NS}<{key}>{nested_value(each)}{NS}</{key}>" for key, each in value.items()
        )
    if isinstance(value, list):
        return "".join(f"{NS}<item>{nested_value(each)}{NS}</item>" for each in value)
    return text(value)


NESTED_VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | without(TEXT, NS, NS[:4]),
    lambda inner: (
        st.lists(st.integers(), max_size=3)
        | st.lists(without(TEXT, NS, NS[:4]), max_size=3)
        | st.dictionaries(KEYS.filter(lambda key: key != "item"), inner, max_size=3)
    ),
    max_leaves=5,
)


def _families() -> dict[str, Family]:
    found = {name: Family(render) for name, render in JSON.items()}
    for name, (render, ends) in PARAMETERS.items():
        found[name] = Family(render, arguments_of(KEYS, without(TEXT, *ends), KEYS))
    keywords = KEYS.filter(str.isidentifier)
    found |= {
        name: Family(render, arguments_of(keywords, TEXT, TEXT))
        for name, render in {
            "pythonic": each(python_call, "[", "]", ", "),
            "llama4_pythonic": each(python_call, "<|python_start|>[", "]<|python_end|>", ", "),
            "lfm2": each(python_call, "<|tool_call_start|>[", "]<|tool_call_end|>", ", "),
            "olmo3": each(python_call, "<function_calls>\n", "\n</function_calls>", "\n"),
        }.items()
    }
    for name, start, end, quote in (
        ("gemma4", "<|tool_call>", "<tool_call|>", '<|"|>'),
        ("functiongemma", "<start_function_call>", "<end_function_call>", "<escape>"),
    ):
        found[name] = Family(
            gemma(start, end, quote), arguments_of(KEYS, without(TEXT, quote, quote[:4]), KEYS)
        )
    found["minimax_m3"] = Family(
        each(
            lambda _, call: (
                f'{NS}<invoke name="{call.name}">{nested_value(call.arguments)}{NS}</invoke>\n'
            ),
            f"{NS}<tool_call>\n",
            f"{NS}</tool_call>",
        ),
        st.dictionaries(KEYS, NESTED_VALUES, max_size=4),
    )
    return found


FAMILIES = _families()
