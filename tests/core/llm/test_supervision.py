"""The engine may die; the door does not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from tests.core.engine.test_process import make_plan
from tests.faults import Fault, failing
from tests.waiting import PATIENCE_SECONDS, until

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import ConfigError, EngineError, EngineStartError, RequestError
from jackfield.llm import AsyncLLM, RestartPolicy
from jackfield.planning import ServingPlan
from jackfield.registry import Registry
from jackfield.testing.simulated_worker import continuation

POLICY = RestartPolicy(max_early_crashes=4)


def serving_plan(
    worker: str,
    *,
    tokenizer_mode: str = "none",
    chat_template: str | None = None,
    reasoning_parser: str | None = None,
    **changes: Any,
) -> ServingPlan:
    return ServingPlan(
        engine=make_plan(worker, **changes),
        directory=Path("simulated"),
        tokenizer_directory=Path("simulated"),
        tokenizer_mode=tokenizer_mode,
        config={},
        generation_defaults={},
        eos_token_ids=(),
        served_model_names=("simulated",),
        max_logprobs=0,
        chat_template=chat_template,
        chat_template_content_format="auto",
        tool_parser=None,
        reasoning_parser=reasoning_parser,
    )


@asynccontextmanager
async def running(
    worker: str, policy: RestartPolicy = POLICY, **changes: Any
) -> AsyncIterator[AsyncLLM]:
    llm = AsyncLLM(serving_plan(worker, **changes), Registry(), policy)
    await llm.start()
    try:
        yield llm
    finally:
        await llm.stop()


def request(prompt: list[int], max_tokens: int, n: int = 1) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True, n=n)
    return GenerationRequest(f"r{prompt}", tuple(prompt), sampling)


def kill(llm: AsyncLLM, number: int = signal.SIGKILL) -> None:
    assert llm.engine_pid is not None
    os.kill(llm.engine_pid, number)


def tokens(deltas: list[ChoiceDelta], index: int = 0) -> list[int]:
    return [token for delta in deltas if delta.index == index for token in delta.token_ids]


async def until_ready(llm: AsyncLLM) -> None:
    await until(lambda: llm.is_ready)


async def first_deltas(llm: AsyncLLM, wanted: GenerationRequest, seen: asyncio.Event) -> None:
    """Streams until the engine dies."""
    with pytest.raises(EngineError, match="died"):
        async for _ in llm.stream(wanted):
            seen.set()


async def test_a_killed_engine_is_replaced_and_what_has_not_streamed_runs_again() -> None:
    # Two run at a time: the others wait. All of a request is run again, n choices with their seeds.
    async with running("SlowWorker", max_num_seqs=2) as llm:
        seen = asyncio.Event()
        stream = asyncio.create_task(first_deltas(llm, request([1], 80), seen))
        await seen.wait()
        collected = [
            asyncio.create_task(llm.collect(request([key], 6, n=key % 3 + 1)))
            for key in range(2, 8)
        ]
        await asyncio.sleep(0.1)
        pid = llm.engine_pid
        kill(llm)
        await stream
        assert not llm.is_ready
        late = asyncio.create_task(llm.collect(request([9], 1)))
        for key, task in enumerate(collected, start=2):
            for index in range(key % 3 + 1):
                assert tokens(await task, index) == continuation([key], 6, 97)
        assert tokens(await late) == continuation([9], 1, 97)
        assert llm.is_ready and llm.engine_pid != pid and llm.num_restarts == 1


async def test_a_stream_that_waits_for_its_first_token_gets_all_of_them() -> None:
    async with running("SlowWorker", max_num_seqs=1) as llm:
        seen = asyncio.Event()
        first = asyncio.create_task(first_deltas(llm, request([1], 80), seen))
        await seen.wait()

        async def waiting() -> list[ChoiceDelta]:
            return [delta async for deltas in llm.stream(request([2], 5)) for delta in deltas]

        second = asyncio.create_task(waiting())
        await asyncio.sleep(0.1)
        kill(llm)
        await first
        assert tokens(await second) == continuation([2], 5, 97)


async def test_a_client_that_leaves_while_the_engine_is_replaced_is_forgotten() -> None:
    async with running("SlowWorker", max_num_seqs=1) as llm:
        gone = asyncio.create_task(llm.collect(request([1], 80)))
        await asyncio.sleep(0.2)
        kill(llm)
        await until(lambda: not llm.is_ready)
        gone.cancel()
        await asyncio.wait({gone})
        await until_ready(llm)
        # The only row is free for another one.
        assert tokens(await llm.collect(request([2], 5))) == continuation([2], 5, 97)


async def test_a_frozen_engine_is_replaced() -> None:
    async with running("SlowWorker", RestartPolicy(4, heartbeat_seconds=1.0)) as llm:
        collected = asyncio.create_task(llm.collect(request([3], 40)))
        await asyncio.sleep(0.2)
        kill(llm, signal.SIGSTOP)
        assert tokens(await collected) == continuation([3], 40, 97)
        assert llm.num_restarts >= 1


async def test_many_kills_lose_nothing_that_waits() -> None:
    async with running("SlowWorker", max_num_seqs=4) as llm:
        for _ in range(3):
            seen = asyncio.Event()
            stream = asyncio.create_task(first_deltas(llm, request([1], 80), seen))
            await seen.wait()
            waiting = [asyncio.create_task(llm.collect(request([k], 5))) for k in range(20)]
            await asyncio.sleep(0.05)
            kill(llm)
            await stream
            for key, task in enumerate(waiting):
                assert tokens(await task) == continuation([key], 5, 97)
        assert llm.num_restarts == 3


async def test_a_request_that_kills_every_engine_ends_and_the_others_are_served() -> None:
    async with running("PoisonedWorker") as llm:
        (poisoned,) = await llm.collect(request([66], 5))
        assert poisoned.finish is not None and poisoned.finish.reason == "error"
        assert "died 3 times" in (poisoned.finish.message or "")
        await until_ready(llm)
        assert tokens(await llm.collect(request([2], 5))) == continuation([2], 5, 97)
        assert llm.num_restarts == 3


async def test_engines_that_crash_early_end_the_service_with_their_own_words() -> None:
    async with running("BrokenStepWorker", RestartPolicy(max_early_crashes=2)) as llm:
        collected = asyncio.create_task(llm.collect(request([1], 5)))
        error = await asyncio.wait_for(llm.wait_dead(), PATIENCE_SECONDS)
        assert isinstance(error, EngineStartError)
        assert str(error) == "the engine failed: ValueError: the device is lost"
        collected.cancel()
        await asyncio.wait({collected})


@pytest.mark.parametrize(("owner", "name"), [(os, "pipe"), (subprocess, "Popen")])
async def test_a_machine_that_has_no_room_for_an_engine_is_asked_again(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("jackfield.llm.supervisor.NO_ROOM_SECONDS", 0.02)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with running("SlowWorker") as llm:
        num_files = len(os.listdir("/proc/self/fd"))
        fault = Fault(at=1, forever=True, error=BlockingIOError)
        with failing(owner, name, fault):
            collected = asyncio.create_task(llm.collect(request([1], 20)))
            await asyncio.sleep(0.1)
            kill(llm)
            # More often than engines may crash: it is no crash.
            await until(lambda: llm.num_restarts >= POLICY.max_early_crashes + 2)
        assert fault.happened and not collected.done()
        assert tokens(await asyncio.wait_for(collected, PATIENCE_SECONDS)) == continuation(
            [1], 20, 97
        )
        assert len(os.listdir("/proc/self/fd")) <= num_files
        assert not list(tmp_path.iterdir())


async def test_a_first_engine_for_which_there_is_no_room_is_not_asked_for_again() -> None:
    fault = Fault(at=1, forever=True, error=BlockingIOError)
    llm = AsyncLLM(serving_plan("SlowWorker"), Registry(), POLICY)
    with failing(subprocess, "Popen", fault), pytest.raises(ConfigError, match="no process"):
        llm.launch()


async def test_without_restarts_the_first_death_is_the_end() -> None:
    async with running("SlowWorker", RestartPolicy()) as llm:
        stream = cast("AsyncGenerator[list[ChoiceDelta]]", llm.stream(request([1], 80)))
        async with aclosing(stream):
            await anext(stream)
            kill(llm)
            error = await asyncio.wait_for(llm.wait_dead(), PATIENCE_SECONDS)
            assert "SIGKILL" in str(error)
            assert not isinstance(error, EngineStartError)


async def test_a_sleeping_engine_refuses_and_serves_again_once_awake() -> None:
    async with running("SleepyWorker") as llm:
        running_one = asyncio.create_task(llm.collect(request([5], 20)))
        await asyncio.sleep(0.05)
        await llm.sleep(1)
        # What ran was finished before.
        assert tokens(await running_one) == continuation([5], 20, 97)
        assert llm.is_asleep and not llm.is_ready
        with pytest.raises(EngineError, match="sleeps"):
            await llm.collect(request([6], 5))
        with pytest.raises(RequestError, match="sleeps already"):
            await llm.sleep(1)
        await llm.wake_up()
        assert llm.is_ready
        assert tokens(await llm.collect(request([6], 5))) == continuation([6], 5, 97)
        await llm.wake_up()
        assert llm.is_ready


async def test_a_worker_that_cannot_sleep_goes_on_serving() -> None:
    async with running("SlowWorker") as llm:
        with pytest.raises(RequestError, match="worker 'simulated' cannot sleep"):
            await llm.sleep(1)
        with pytest.raises(RequestError, match="1 or 2"):
            await llm.sleep(3)
        assert tokens(await llm.collect(request([6], 5))) == continuation([6], 5, 97)


async def test_an_engine_that_dies_asleep_is_replaced_by_one_that_is_awake() -> None:
    async with running("SleepyWorker") as llm:
        await llm.sleep(2)
        kill(llm)
        await until_ready(llm)
        assert tokens(await llm.collect(request([6], 5))) == continuation([6], 5, 97)
