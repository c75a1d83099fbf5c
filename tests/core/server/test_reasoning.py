"""Reasoning over HTTP: a real engine and a tiny model whose tokenizer has the tags."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.checkpoints import make
from tests.core.server.fake_llm import FakeLLM, FakePlan
from tests.core.server.http_server import in_process
from tests.core.server.scripts import CALLS, events
from tokenizers import AddedToken, Tokenizer

from jackfield.config.settings import make_settings
from jackfield.errors import ConfigError
from jackfield.llm.door import AsyncLLM
from jackfield.planning import ServingPlan, make_plan
from jackfield.registry import Registry

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("thinks")
    shutil.copytree(make("Qwen3ForCausalLM"), copy, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(copy / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(tag, special=False) for tag in ("<think>", "</think>")])
    tokenizer.save(str(copy / "tokenizer.json"))
    (copy / "chat_template.jinja").write_text(TEMPLATE)
    return copy


def plan_of(directory: Path, parser: str) -> ServingPlan:
    settings = make_settings({"model": str(directory), "device": "cpu", "reasoning_parser": parser})
    return make_plan(settings, Registry())


def test_auto_goes_by_the_checkpoint_and_hf_says_what_it_misses(directory: Path) -> None:
    assert plan_of(directory, "auto").reasoning_parser == "qwen3"
    assert plan_of(make("Qwen3ForCausalLM"), "auto").reasoning_parser is None
    with pytest.raises(ConfigError, match="needs a response_template"):
        plan_of(directory, "hf")


@asynccontextmanager
async def thinking(directory: Path, **options: object) -> AsyncIterator[httpx.AsyncClient]:
    settings = make_settings(
        {
            "model": str(directory),
            "device": "cpu",
            "max_model_len": 256,
            "reasoning_parser": "qwen3",
            "use_tqdm_on_load": False,
            **options,
        }
    )
    registry = Registry(settings.plugin_sources)
    llm = AsyncLLM(make_plan(settings, registry), registry)
    await llm.start()
    llm.served_model_names = ("tiny",)  # type: ignore[attr-defined]
    async with in_process(llm) as client:  # type: ignore[arg-type]
        yield client
    await llm.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with thinking(directory) as client:
        yield client


def body(**fields: object) -> dict[str, Any]:
    return {
        "messages": HELLO,
        "temperature": 0,
        "max_tokens": 24,
        "ignore_eos": True,
        "return_token_ids": True,
        # The tiny model writes text, and does not end its thought itself.
        "allowed_token_ids": [*range(33, 60), *range(300, 400)],
        **fields,
    }


async def answer(http: httpx.AsyncClient, **fields: object) -> dict[str, Any]:
    response = await http.post(CHAT, json=body(**fields))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("budget", [0, 1, 7])
async def test_a_thought_is_as_long_as_its_budget(http: httpx.AsyncClient, budget: int) -> None:
    found = await answer(http, thinking_token_budget=budget)
    choice = found["choices"][0]
    assert choice["token_ids"].index(401) == budget
    assert found["usage"]["completion_tokens_details"] == {"reasoning_tokens": budget}
    assert found["usage"]["completion_tokens"] == 24
    message = choice["message"]
    assert message["reasoning"] == message["reasoning_content"]
    assert bool(message["reasoning"]) == (budget > 0)
    assert message["content"]


@pytest.mark.asyncio(loop_scope="module")
async def test_many_clients_with_and_without_a_budget(http: httpx.AsyncClient) -> None:
    alone = (await answer(http))["choices"][0]["token_ids"]
    budgets = [None, 2, None, 5, 9, None, 0, 3]
    found = await asyncio.gather(
        *(answer(http, n=2, thinking_token_budget=budget) for budget in budgets)
    )
    for budget, each in zip(budgets, found, strict=True):
        for choice in each["choices"]:
            if budget is None:
                assert choice["token_ids"] == alone
            else:
                assert choice["token_ids"][: budget + 1] == [*alone[:budget], 401]
        thought = 48 if budget is None else 2 * budget
        assert each["usage"]["completion_tokens_details"]["reasoning_tokens"] == thought


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_says_the_same(http: httpx.AsyncClient) -> None:
    whole = (await answer(http, thinking_token_budget=6))["choices"][0]["message"]
    options = {"include_usage": True}
    fields = body(stream=True, stream_options=options, thinking_budget=6)
    response = await http.post(CHAT, json=fields)
    frames = [
        json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")
    ]
    deltas = [choice["delta"] for frame in frames for choice in frame["choices"]]
    said = "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert said == "".join(delta.get("reasoning", "") for delta in deltas) == whole["reasoning"]
    assert "".join(delta.get("content") or "" for delta in deltas) == whole["content"]
    assert frames[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "off", [{"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}]
)
async def test_without_thinking_a_budget_changes_nothing(
    http: httpx.AsyncClient, off: dict[str, object]
) -> None:
    plain = await answer(http, **off)
    assert await ids_of(http, thinking_token_budget=3, **off) == plain["choices"][0]["token_ids"]
    assert plain["choices"][0]["message"]["reasoning"] is None
    assert plain["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


@pytest.mark.asyncio(loop_scope="module")
async def test_thinking_may_be_off_unless_a_request_wants_it(directory: Path) -> None:
    off = {"enable_thinking": False}
    async with thinking(directory, default_chat_template_kwargs=off) as http:
        silent = await answer(http)
        other = await answer(http, chat_template_kwargs={"other": 1})
        wants = await answer(http, chat_template_kwargs={"enable_thinking": True})
        counted = (await http.post("/tokenize", json={"messages": HELLO})).json()
    for found in (silent, other):
        assert found["choices"][0]["message"]["reasoning"] is None
    assert wants["choices"][0]["message"]["reasoning"]
    assert len(wants["prompt_token_ids"]) > len(silent["prompt_token_ids"])
    assert counted["tokens"] == silent["prompt_token_ids"]


async def ids_of(http: httpx.AsyncClient, **fields: object) -> list[int]:
    found: list[int] = (await answer(http, **fields))["choices"][0]["token_ids"]
    return found


@pytest.mark.asyncio(loop_scope="module")
async def test_reasoning_of_the_history_reaches_the_template(http: httpx.AsyncClient) -> None:
    texts = []
    for name in ("reasoning", "reasoning_content"):
        said = {"role": "assistant", "content": "Hi", name: "hm"}
        found = await answer(http, messages=[*HELLO, said, *HELLO], max_tokens=1)
        texts.append(found["prompt_token_ids"])
    assert texts[0] == texts[1]
    assert 400 in texts[0] and 401 in texts[0]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_budget_below_0_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=body(thinking_token_budget=-1))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "thinking_token_budget"
    response = await http.post("/v1/completions", json={"prompt": "a", "thinking_token_budget": 1})
    assert response.status_code == 400
    assert "chat" in response.json()["error"]["message"]


async def test_hidden_reasoning_is_still_counted() -> None:
    plan = FakePlan(tool_parser="hermes", reasoning_parser="qwen3")
    async with in_process(FakeLLM(events(*CALLS), plan=plan)) as http:
        response = await http.post(CHAT, json={"messages": HELLO, "include_reasoning": False})
    found = response.json()
    assert found["choices"][0]["message"]["reasoning_content"] is None
    assert found["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
