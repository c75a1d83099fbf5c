"""What a family's chat template makes of earlier calls is what its parser reads.

The excerpts follow the templates of the checkpoints: only the part that writes an assistant's
calls, in our own words.
"""

# ruff: noqa: E501, RUF001

from __future__ import annotations

import json
from typing import Any

import jinja2
import pytest

from jackfield.contracts.text import CheckpointText, ParserContext
from jackfield.testing.tool_parsers import Call, calls_of, content_of, schema_of
from jackfield.text.events import merge_events
from jackfield_tool_parsers import formats
from jackfield_tool_parsers.auto import AutoToolParser

CALLS = [
    Call(
        "get_weather",
        {
            "city": 'Par"is\n{x} </tool_call> \u4f60\u597d',
            "days": 3,
            "exact": True,
            "nested": {"a": [1, {"b": "c"}], "n": None},
        },
    ),
    Call("now", {}),
]
TEMPLATES = {
    "hermes": """
{%- for call in calls %}{{ "\n" if not loop.first }}<tool_call>
{"name": "{{ call.name }}", "arguments": {{ call.arguments | json }}}
</tool_call>{% endfor %}""",
    "llama3_json": """<|start_header_id|>
{%- set call = calls[0] %}{"name": "{{ call.name }}", "parameters": {{ call.arguments | json }}}""",
    "mistral": """
{%- for call in calls %}[TOOL_CALLS]{{ call.name }}[ARGS]{{ call.arguments | json }}{% endfor %}""",
    "deepseek_v3": """<｜tool▁calls▁begin｜>
{%- for call in calls %}{{ "\n" if not loop.first }}<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ call.name }}
```json
{{ call.arguments | json }}
```<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>""",
    "deepseek_v31": """<｜tool▁calls▁begin｜>
{%- for call in calls %}<｜tool▁call▁begin｜>{{ call.name }}<｜tool▁sep｜>{{ call.arguments | json
}}<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>""",
    "deepseek_v32": """<｜DSML｜function_calls>
{% for call in calls %}<｜DSML｜invoke name="{{ call.name }}">
{% for key, value in call.arguments.items() %}<｜DSML｜parameter name="{{ key }}" string="
{{- "true" if value is string else "false" }}">{{ value if value is string else value | json
}}</｜DSML｜parameter>
{% endfor %}</｜DSML｜invoke>
{% endfor %}</｜DSML｜function_calls>""",
    "qwen3_coder": """
{%- for call in calls %}{{ "\n" if not loop.first }}<tool_call>
<function={{ call.name }}>
{% for key, value in call.arguments.items() %}<parameter={{ key }}>
{{ value if value is string else value | json }}
</parameter>
{% endfor %}</function>
</tool_call>{% endfor %}""",
    "glm45": """
{%- for call in calls %}
<tool_call>{{ call.name }}
{% for key, value in call.arguments.items() %}<arg_key>{{ key }}</arg_key>
<arg_value>{{ value if value is string else value | json }}</arg_value>
{% endfor %}</tool_call>{% endfor %}""",
    "kimi_k2": """<|tool_calls_section_begin|>
{%- for call in calls %}<|tool_call_begin|>functions.{{ call.name }}:{{ loop.index0
}}<|tool_call_argument_begin|>{{ call.arguments | json }}<|tool_call_end|>{% endfor -%}
<|tool_calls_section_end|>""",
    "minimax_m2": """<minimax:tool_call>
{% for call in calls %}<invoke name="{{ call.name }}">
{% for key, value in call.arguments.items() %}<parameter name="{{ key }}">
{{- value if value is string else value | json }}</parameter>
{% endfor %}</invoke>
{% endfor %}</minimax:tool_call>""",
    "granite": """<|tool_call|>[
{%- for call in calls %}{{ ", " if not loop.first }}{"name": "{{ call.name }}", "arguments": {{
call.arguments | json }}}{% endfor %}]""",
    "openai": """
{%- for call in calls %}{{ "<|start|>assistant" if not loop.first }}<|channel|>commentary to=functions.
{{- call.name }} <|constrain|>json<|message|>{{ call.arguments | json }}<|call|>{% endfor %}""",
    "gemma4": """
{%- macro write(value) %}{% if value is string %}<|"|>{{ value }}<|"|>{% elif value is mapping
%}{{ "{" }}{% for key, each in value.items() %}{{ "," if not loop.first }}{{ key }}:{{ write(each)
}}{% endfor %}{{ "}" }}{% elif value is sequence %}[{% for each in value %}{{ "," if not loop.first
}}{{ write(each) }}{% endfor %}]{% else %}{{ value | json }}{% endif %}{% endmacro %}
{%- for call in calls %}<|tool_call>call:{{ call.name }}{{ write(call.arguments)
}}<tool_call|>{% endfor %}""",
}


def environment() -> jinja2.Environment:
    made = jinja2.Environment(autoescape=False)
    made.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return made


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_template_writes_is_read(name: str) -> None:
    template = environment().from_string(TEMPLATES[name])
    text = template.render(calls=CALLS).removeprefix("<|start_header_id|>")
    wanted = CALLS[:1] if name == "llama3_json" else CALLS
    tools: list[dict[str, Any]] = [
        {
            "type": "function",
            "function": {"name": call.name, "parameters": schema_of(call.arguments)},
        }
        for call in CALLS
    ]
    for pieces in ([text], list(text)):
        parser = getattr(formats, name)(ParserContext(tools=tools))
        events = [event for piece in pieces for event in parser.feed(piece)]
        merged = merge_events([*events, *parser.finish()])
        assert calls_of(merged) == wanted
        assert not content_of(merged).strip()


@pytest.mark.parametrize("name", TEMPLATES)
def test_auto_chooses_by_the_template(name: str) -> None:
    assert AutoToolParser.choose(CheckpointText(chat_template=TEMPLATES[name])) == name
