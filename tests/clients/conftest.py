"""A scripted server in a thread of its own, for clients of any kind.

pip install --group clients && npm install --prefix tests/clients/node && pytest tests/clients
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.core.server.fake_llm import EMBED, FakeLLM, FakePlan
from tests.core.server.http_server import serving

from jackfield.contracts.generation import ChoiceDelta, Finish, GenerationRequest
from jackfield.contracts.response_store import StoreLimits
from jackfield.contracts.text import (
    Content,
    Event,
    Reasoning,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from jackfield_response_stores.memory import MemoryResponseStore

HERE = Path(__file__).parent
GREETING = "Hello there, this is a model."
FORECAST = {"city": "Paris", "degrees": 20}
TOLD = "It is 20 degrees in Paris."


class Assistant(FakeLLM):
    """Greets; calls the first tool that it has, once; tells what the tool said; answers in JSON
    where a structure is asked for."""

    def __init__(self, thinks: bool = False) -> None:
        parser = "scripted" if thinks else None
        plan = FakePlan(tool_parser="scripted", reasoning_parser=parser)
        super().__init__(self._say, plan=plan, max_model_len=100_000)
        self._thought = [(Reasoning("Well."),)] if thinks else []

    def tool_structure(
        self, tools: object, choice: str, *, parallel: bool = True
    ) -> Mapping[str, object] | None:
        """Some structure: the script obeys anyway."""
        return {"type": "structural_tag", "format": {"type": "any_text"}}

    async def _say(self, request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        steps = [*self._thought, *self._events(request), ()]
        for step in steps:
            await asyncio.sleep(0)
            text = "".join(event.text for event in step if isinstance(event, Content))
            finish = None if step else Finish("stop")
            yield [ChoiceDelta(0, text, (97,), tuple(step), finish=finish)]

    def _events(self, request: GenerationRequest) -> list[tuple[Event, ...]]:
        messages = self.prompts.last_chat["messages"]
        if any(message["role"] == "tool" for message in messages):
            return [(Content(f"{word} "),) for word in TOLD.split()]
        if request.tools:
            return _call(request.tools[0]["function"])
        structure: Any = request.sampling.structured_outputs
        if structure is not None:
            return [(Content(piece),) for piece in json.dumps(FORECAST).partition(":")]
        return [(Content(f"{word} "),) for word in GREETING.split()]


def _call(function: Any) -> list[tuple[Event, ...]]:
    """A call whose arguments are those of the forecast that the tool has parameters for."""
    known = function["parameters"]["properties"]
    head, colon, tail = json.dumps({k: v for k, v in FORECAST.items() if k in known}).partition(":")
    return [
        (ToolCallStart(0, function["name"]), ToolCallArguments(0, head)),
        (ToolCallArguments(0, colon + tail), ToolCallEnd(0)),
    ]


@contextmanager
def served(llm: FakeLLM) -> Iterator[str]:
    """The URL of a server in a thread of its own."""
    ready, end, urls = threading.Event(), asyncio.Event(), []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        store = MemoryResponseStore(StoreLimits(max_responses=100, max_bytes=1 << 20))
        async with serving(llm, response_store=store) as url:
            urls.append(url)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    yield urls[0]
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of the server of an assistant."""
    with served(Assistant()) as url:
        yield url


@pytest.fixture(scope="session")
def thinking_server() -> Iterator[str]:
    """The URL of the server of an assistant that thinks first."""
    with served(Assistant(thinks=True)) as url:
        yield url


@pytest.fixture(scope="session")
def embedding_server() -> Iterator[str]:
    """The URL of a server of an embedding model."""
    with served(FakeLLM(plan=FakePlan(pooling=EMBED))) as url:
        yield url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Some clients warn, and leave their connections to the collector, which may come within the
    test of another one."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="module", autouse=True)
def nothing_left_to_collect() -> Iterator[None]:
    """The collector comes at the end of each file here, not within a test elsewhere."""
    yield
    gc.collect()


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    """Some clients leave their connections to the collector, which comes after the last test."""
    warnings.simplefilter("ignore")
