"""What a consumer gets of a request, and when nothing has been given away yet."""

from __future__ import annotations

import asyncio

import pytest

from jackfield.contracts.generation import ChoiceDelta, Finish, GenerationRequest
from jackfield.contracts.messages import AddRequest
from jackfield.contracts.sampling import SamplingParams, TokenSampling
from jackfield.errors import EngineError
from jackfield.llm.run import MAX_PENDING, Run

DONE = Finish("stop")


def make_run(*, wake_at_end: bool = False, waits_for_text: bool = True) -> Run:
    request = GenerationRequest("r", (1,), SamplingParams())
    message = AddRequest(1, b"\1\0\0\0", TokenSampling(), 8, 0.0)
    choices: list[object] = [object()]
    run = Run(request, [message], lambda: choices, 0.0, 8, wake_at_end, waits_for_text)  # type: ignore[arg-type, return-value]
    run.begin()
    return run


def delta(text: str, finish: Finish | None = None) -> ChoiceDelta:
    return ChoiceDelta(0, text, (5,), finish=finish)


async def test_a_stream_begins_with_its_first_text() -> None:
    run = make_run()
    taking = asyncio.create_task(run.take())
    run.push(delta(""), None)
    await asyncio.sleep(0)
    assert not taking.done() and not run.has_streamed
    run.push(delta("a"), None)
    assert [each.text for each in await taking] == ["", "a"]
    run.push(delta(""), None)
    assert len(await run.take()) == 1


async def test_without_text_every_token_is_told() -> None:
    run = make_run(waits_for_text=False)
    run.push(delta(""), None)
    assert len(await run.take()) == 1


async def test_what_had_no_text_yet_is_forgotten_at_a_new_start() -> None:
    run = make_run()
    taking = asyncio.create_task(run.take())
    await asyncio.sleep(0)
    run.push(delta(""), None)
    run.begin()
    run.push(delta("b", DONE), DONE)
    assert [each.text for each in await taking] == ["b"]
    assert run.num_open == 0


async def test_a_failure_comes_after_what_a_stream_has_and_at_once_for_an_answer() -> None:
    stream = make_run()
    stream.push(delta("a"), None)
    stream.fail(EngineError("gone"))
    assert len(await stream.take()) == 1
    for _ in range(2):
        with pytest.raises(EngineError, match="gone"):
            await stream.take()
    answer = make_run(wake_at_end=True)
    answer.push(delta("a"), None)
    answer.fail(EngineError("gone"))
    with pytest.raises(EngineError, match="gone"):
        await answer.take()


async def test_a_request_that_is_given_up_ends_in_an_error_of_its_own() -> None:
    run = make_run(wake_at_end=True)
    run.push(delta("a"), None)
    run.give_up("it kills engines")
    (only,) = await run.take()
    assert only.finish == Finish("error", message="it kills engines")
    assert run.record().finish == "error"


def test_a_stream_that_nobody_reads_is_too_far_behind_at_some_point() -> None:
    stream, answer = make_run(), make_run(wake_at_end=True)
    told = [stream.push(delta("a"), None) for _ in range(MAX_PENDING)]
    assert told == [True] * (MAX_PENDING - 1) + [False]
    assert all(answer.push(delta("a"), None) for _ in range(MAX_PENDING))
