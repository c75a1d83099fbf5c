"""What scripted doors say, for several tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tests.core.server.fake_llm import Script

from jackfield.contracts.generation import ChoiceDelta, Finish, GenerationRequest
from jackfield.contracts.text import (
    Content,
    Event,
    Reasoning,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)

CALLS: tuple[tuple[Event, ...], ...] = (
    (Reasoning("let me "),),
    (Reasoning("see"), Content("\n")),
    (ToolCallStart(0, "weather"), ToolCallArguments(0, '{"city":')),
    (ToolCallArguments(0, ' "Paris"}'), ToolCallEnd(0), Content("\n")),
    (ToolCallStart(1, "time", "functions.time:1"), ToolCallArguments(1, "{}"), ToolCallEnd(1)),
)
"""Thinking, then two calls, the second with an id of the model's own, with the newlines that models
put between."""

TALK: tuple[tuple[Event, ...], ...] = (
    (Reasoning("hm"),),
    (Content("\n\n"),),
    (Content("Grüße, "),),
    (Content('"you"\n'),),
)
"""Thinking, then text with what JSON must escape."""


def events(*steps: tuple[Event, ...], finish: Finish | None = None) -> Script:
    """A script of one choice that says these events, a token a step."""

    async def stream(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        for step in steps:
            await asyncio.sleep(0)
            thinks = any(isinstance(event, Reasoning) for event in step)
            yield [
                ChoiceDelta(
                    index=0,
                    text="",
                    token_ids=(97,),
                    events=step,
                    num_cached_tokens=4,
                    num_reasoning_tokens=int(thinks),
                )
            ]
        end = Finish("stop") if finish is None else finish
        yield [ChoiceDelta(index=0, text="", token_ids=(256,), finish=end)]

    return stream


async def breaks_off(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
    """A letter, and then the request fails."""
    yield [ChoiceDelta(0, "a", (97,), (Content("a"),))]
    yield [ChoiceDelta(0, "", (), finish=Finish("error", message="it broke"))]
