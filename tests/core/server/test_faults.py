"""Whatever fails at whatever call: every request ends, nothing is left, the next one is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.core.llm.test_supervision import POLICY, serving_plan
from tests.core.server.fake_llm import ByteTokenizer
from tests.faults import Fault, failing
from tests.waiting import PATIENCE_SECONDS, until

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.engine.channel import FrameDecoder, FrameEncoder
from jackfield.errors import EngineError
from jackfield.hooks import Hooks
from jackfield.llm import AsyncLLM
from jackfield.registry import Registry
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.metrics import Metrics
from jackfield.server.options import ServerOptions
from jackfield.text.chat_template import ChatTemplate
from jackfield.text.detokenizer import Detokenizer
from jackfield.text.output import ChoiceOutput
from jackfield.text.prompt import PromptBuilder
from jackfield.text.stop import StopStrings

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
TEXT = {"prompt": "ab", "max_tokens": 4, "ignore_eos": True, "stop": ["never"]}
CHAT = {"messages": [{"role": "user", "content": "ab"}], "max_tokens": 4, "ignore_eos": True}
REQUESTS = [
    ("/v1/completions", TEXT),
    ("/v1/completions", TEXT | {"stream": True, "n": 2}),
    ("/v1/completions", TEXT | {"prompt": ["ab", "cd"]}),
    ("/v1/chat/completions", CHAT | {"n": 2}),
    ("/v1/chat/completions", CHAT | {"stream": True}),
]


class Service:
    """The real door over an engine process without a model, and a client of the application."""

    def __init__(self, llm: AsyncLLM) -> None:
        self.llm = llm
        assert llm._text._reasoning_parser is not None
        self.parser = llm._text._reasoning_parser.found
        hooks = Hooks(())
        hooks.request_filters.append(("mine", _pass_request))
        hooks.response_filters.append(("mine", _pass_delta))
        self.hooks = hooks
        self.frontend = Frontend(llm, ServerOptions())
        app = build_app(self.frontend, hooks)
        self.http = httpx.AsyncClient(
            base_url="http://server", transport=httpx.ASGITransport(app=app)
        )


def _pass_request(request: GenerationRequest) -> GenerationRequest:
    return request


def _pass_delta(request: GenerationRequest, delta: ChoiceDelta) -> ChoiceDelta:
    return delta


@asynccontextmanager
async def service(
    monkeypatch: pytest.MonkeyPatch, worker: str = "SimulatedWorker"
) -> AsyncIterator[Service]:

    def load_tokenizer(*_: object, **__: object) -> ByteTokenizer:
        return ByteTokenizer()

    monkeypatch.setattr("jackfield.llm.text_side.load_tokenizer", load_tokenizer)
    plan = serving_plan(
        worker,
        tokenizer_mode="auto",
        chat_template=TEMPLATE,
        reasoning_parser="deepseek_r1",
        config={"vocab_size": 257},
    )
    llm = AsyncLLM(plan, Registry(), POLICY)
    await llm.start()
    running = Service(llm)
    try:
        async with running.http:
            yield running
    finally:
        await llm.stop()


async def check_all_end(running: Service) -> None:
    """Each request has an answer, an error, or a stream that says how it ended."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        answers = await asyncio.gather(
            *[running.http.post(path, json=body) for path, body in REQUESTS]
        )
    for (path, body), answer in zip(REQUESTS, answers, strict=True):
        if answer.status_code != 200:
            assert answer.status_code in (400, 422, 500, 503), answer.text
            assert answer.json()["error"]["message"]
            assert "injected" not in answer.text, "an inner error is shown"
        elif body.get("stream"):
            assert answer.text.endswith("data: [DONE]\n\n")
        else:
            assert len(answer.json()["choices"]) >= 1, path


async def check_nothing_is_left(running: Service, num_tasks: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        llm, frontend = running.llm, running.frontend
        await until(lambda: llm.is_ready and not llm._runs and not frontend.num_active)
        await until(lambda: len(asyncio.all_tasks()) <= num_tasks)
        for path, body in REQUESTS:
            answer = await running.http.post(path, json=body)
            assert answer.status_code == 200, answer.text
        assert running.llm.stats is not None
        assert (running.llm.stats.num_running, running.llm.stats.num_blocks_used) == (0, 0)


Injection = Callable[[Service, Fault], AbstractContextManager[None]]

POINTS: dict[str, Injection] = {
    "tokenizer": lambda running, fault: failing(running.llm.tokenizer, "encode", fault),
    "prompt": lambda _, fault: failing(PromptBuilder, "resolve", fault),
    "template": lambda _, fault: failing(ChatTemplate, "render", fault),
    "detokenizer": lambda _, fault: failing(Detokenizer, "feed", fault),
    "stop strings": lambda _, fault: failing(StopStrings, "feed", fault),
    "choice": lambda _, fault: failing(ChoiceOutput, "feed", fault),
    "parser": lambda running, fault: failing(running.parser, "feed", fault),
    "end of parser": lambda running, fault: failing(running.parser, "finish", fault),
    "request hook": lambda running, fault: failing_item(running.hooks.request_filters, fault),
    "response hook": lambda running, fault: failing_item(running.hooks.response_filters, fault),
    "observer": lambda _, fault: failing(Metrics, "request_finished", fault),
    "socket, sending": lambda _, fault: failing(FrameEncoder, "encode", fault),
}


def failing_item(functions: list[Any], fault: Fault) -> AbstractContextManager[None]:
    owner, real = functions[0]

    class Item:
        def __enter__(self) -> None:
            functions[0] = (owner, self.call)

        def __exit__(self, *_: object) -> None:
            functions[0] = (owner, real)

        def call(self, *args: Any) -> Any:
            fault.strike()
            return real(*args)

    return Item()


@pytest.mark.parametrize("point", POINTS)
async def test_a_fault_in_front_costs_its_request_alone(
    point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(monkeypatch) as running:
        await check_all_end(running)
        num_tasks = len(asyncio.all_tasks())
        for forever in (False, True):
            for at in (1, 2, 5):
                fault = Fault(at, forever)
                with POINTS[point](running, fault):
                    await check_all_end(running)
                assert fault.happened or at > 2
                await check_nothing_is_left(running, num_tasks)
        assert running.llm.num_restarts == 0


@pytest.mark.parametrize("at", [1, 2])
async def test_a_message_that_cannot_be_read_costs_an_engine_and_no_request_that_waits(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(monkeypatch) as running:
        num_tasks = len(asyncio.all_tasks())
        fault = Fault(at, False, EngineError)
        with failing(FrameDecoder, "feed", fault):
            async with asyncio.timeout(PATIENCE_SECONDS):
                # An engine that is quick says all of it in one message.
                while not fault.happened:
                    await check_all_end(running)
        await check_nothing_is_left(running, num_tasks)
        assert running.llm.num_restarts == 1


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("what", ["step", "sampler"])
async def test_a_step_that_fails_once_costs_an_engine_and_a_row_that_fails_its_request(
    what: str, at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAULT_AT", str(at))
    monkeypatch.setenv("FAULT_FILE", str(tmp_path / "happened"))
    worker = "FaultyStepWorker" if what == "step" else "FaultySamplerWorker"
    async with service(monkeypatch, worker) as running:
        num_tasks = len(asyncio.all_tasks())
        await check_all_end(running)
        assert (tmp_path / "happened").exists()
        await check_nothing_is_left(running, num_tasks)
        assert running.llm.num_restarts == (what == "step")
