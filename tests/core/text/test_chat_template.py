"""The oracle is transformers' own rendering of the same templates and messages."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers.utils.chat_template_utils import render_jinja_template

from jackfield.errors import ConfigError, RequestError
from jackfield.text import chat_template
from jackfield.text.chat_template import ChatTemplate, find_chat_template

HERE = Path(__file__).parent
TEMPLATES = sorted((HERE / "templates").glob("*.jinja"))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather <now> & later \u00e9",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "where"},
                    "days": {"type": "array", "items": {"type": "integer"}},
                    "unit": {"enum": ["C", "F"]},
                    "place": {"type": "object", "properties": {"x": {"type": "number"}}},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "stop", "parameters": {"type": "object"}}},
]
WORDS = [
    "Hello",
    "\u4f60\u597d",
    "  padded ",
    "a\n\nb",
    "<b> & 'q' \"d\"",
    "",
    "</think>",
    "{{ x }}",
    "\U0001f600",
]


def random_conversation(rng: random.Random) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))

    if rng.random() < 0.5:
        messages.append({"role": "system", "content": text()})
    for _ in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": text()})
        if rng.random() < 0.2:
            messages.append({"role": "user", "content": text()})
        answer: dict[str, Any] = {"role": "assistant", "content": text()}
        if rng.random() < 0.4:
            answer[rng.choice(["reasoning_content", "reasoning", "thinking"])] = text()
        if rng.random() < 0.4:
            answer["tool_calls"] = [tool_call(rng) for _ in range(rng.randint(1, 2))]
            if rng.random() < 0.5:
                answer["content"] = None
            messages.append(answer)
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": text()}
                for call in answer["tool_calls"]
            ]
        elif rng.random() < 0.8:
            messages.append(answer)
    return messages


def tool_call(rng: random.Random) -> dict[str, Any]:
    arguments = {"city": rng.choice(WORDS), "days": [1, 2.5, None], "deep": {"a": True}}
    id = "".join(rng.choices("abc123", k=9))
    return {"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def by_transformers(messages: list[dict[str, Any]], source: str, **kwargs: Any) -> str:
    rendered, _ = render_jinja_template(conversations=[messages], chat_template=source, **kwargs)
    return str(rendered[0])


def outcome(render: Callable[..., str], *args: Any, **kwargs: Any) -> str:
    try:
        return render(*args, **kwargs)
    except Exception:
        return "error"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_renders_as_transformers_does(path: Path) -> None:
    source = path.read_text()
    template = ChatTemplate(source, SPECIAL)
    rng = random.Random(path.stem)
    rendered = 0
    for _ in range(60):
        messages = random_conversation(rng)
        if path.stem == "parts_only":
            for message in messages:
                message["content"] = [{"type": "text", "text": message["content"] or ""}]
        # transformers drops None before it calls its renderer.
        plain = [{k: v for k, v in message.items() if v is not None} for message in messages]
        tools = rng.choice([None, TOOLS])
        documents = rng.choice([None, [{"title": "T", "text": "words"}]])
        prompt = rng.random() < 0.5
        extra: dict[str, Any] = rng.choice(
            [{}, {"enable_thinking": False}, {"date_string": "today"}]
        )
        continues = not prompt and isinstance(plain[-1].get("content"), str) and rng.random() < 0.5
        shared: dict[str, Any] = {
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": prompt,
            "continue_final_message": continues,
        }
        expected = outcome(by_transformers, plain, source, **shared, **SPECIAL, **extra)
        actual = outcome(template.render, messages, **shared, template_kwargs=extra)
        assert actual == expected
        rendered += actual != "error"
    assert rendered >= 6, "too few conversations suit this template for the test to mean much"


def test_tool_use_template_is_taken_for_requests_with_tools() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "tools: {{ tools | length }}"})
    user = [{"role": "user", "content": "x"}]
    assert template.render(user) == "plain"
    assert template.render(user, tools=[]) == "plain"
    assert template.render(user, tools=TOOLS) == "tools: 2"


def test_exceptions_of_the_template_name_the_messages() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RequestError, match=r"^roles must alternate$") as caught:
        template.render([{"role": "user", "content": "x"}])
    assert caught.value.param == "messages" and caught.value.status == 400
    with pytest.raises(RequestError, match="cannot render these messages") as caught:
        ChatTemplate("{{ messages[9].role.x.y }}").render([{"role": "user", "content": "x"}])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ 'a' ", "{% nothing %}", "{% if a %}", "{{ a | nofilter }}"]
)
def test_broken_template_is_a_config_error(source: str) -> None:
    with pytest.raises(ConfigError, match="chat template"):
        ChatTemplate(source)


HOSTILE: dict[str, str] = yaml.safe_load((HERE / "hostile_templates.yaml").read_text())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_cannot_run_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.3)
    begin = time.thread_time()
    with pytest.raises(RequestError) as caught:
        ChatTemplate(HOSTILE[name]).render(
            [{"role": "user", "content": "x"}], template_kwargs={"width": 10**9}
        )
    assert caught.value.param == "messages"
    assert time.thread_time() - begin < 10


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ namespace(__class__=1) }}",
        "{{ self._TemplateReference__context.environment.globals.clear() }}",
        "{{ dict.__call__.__globals__ }}",
        "{% include 'x' %}",
        "{{ cycler.__init__.__globals__.os.popen('id') }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    ],
)
def test_a_template_cannot_reach_out(source: str) -> None:
    try:
        text = ChatTemplate(source).render([{"role": "user", "content": "x"}])
    except RequestError:
        return
    assert text == "", "jinja2 makes a forbidden attribute undefined, which renders as nothing"


def test_long_conversations_stay_well_within_the_bounds() -> None:
    source = (HERE / "templates" / "chatml_thinking.jinja").read_text()
    messages = [
        {"role": "user" if index % 2 == 0 else "assistant", "content": "words " * 200}
        for index in range(1001)
    ]
    text = ChatTemplate(source, SPECIAL).render(messages, tools=TOOLS)
    assert text.count("<|im_start|>") == 1003


def test_threads_render_side_by_side() -> None:
    source = (HERE / "templates" / "chatml_thinking.jinja").read_text()
    template = ChatTemplate(source, SPECIAL)
    wrong: list[str] = []

    def work(name: str) -> None:
        for _ in range(20):
            text = template.render([{"role": "user", "content": name}] * 20)
            if text.count(name) != 20:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(f"thread-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_kwargs_cannot_replace_the_messages() -> None:
    with pytest.raises(RequestError) as caught:
        ChatTemplate("x").render([], template_kwargs={"messages": []})
    assert caught.value.param == "chat_template_kwargs"


def test_override_is_a_file_or_the_template_itself(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("from file {{ messages | length }}")
    for override, expected in ((str(file), "from file 1"), ("{{ 'literal' }}", "literal")):
        template = find_chat_template(None, override)
        assert template is not None
        assert template.render([{"role": "user", "content": "x"}]) == expected
    with pytest.raises(ConfigError, match="no_such_file"):
        find_chat_template(None, str(tmp_path / "no_such_file"))
    assert find_chat_template(None, None) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml_thinking", "string"),
        ("mistral", "string"),
        ("llama3", "string"),
        ("gemma", "string"),
        ("gemma3_parts", "both"),
        ("parts_only", "openai"),
    ],
)
def test_content_format_is_read_off_the_template(name: str, expected: str) -> None:
    source = (HERE / "templates" / f"{name}.jinja").read_text()
    assert ChatTemplate(source).content_format(False) == expected


@pytest.mark.parametrize(
    ("expected", "source"), yaml.safe_load((HERE / "content_formats.yaml").read_text())
)
def test_content_is_followed_through_names(expected: str, source: str) -> None:
    assert ChatTemplate(source).content_format(False) == expected
