"""Whoever streams gets everything, however slowly it takes."""

from __future__ import annotations

import asyncio

import pytest
from tests.core.llm.test_supervision import request, running, serving_plan
from tests.core.server.fake_llm import ByteTokenizer
from tests.core.server.test_direct_writes import HeldEngine

from jackfield.llm import AsyncLLM
from jackfield.llm.engine_link import EngineEvents
from jackfield.registry import Registry
from jackfield.testing.simulated_worker import continuation


@pytest.mark.parametrize("n", [1, 3])
async def test_what_came_while_the_consumer_was_busy_is_still_there(n: int) -> None:
    async with running("SlowWorker") as llm:
        deltas = []
        async for batch in llm.stream(request([1, 2, 3], 20, n)):
            deltas += batch
            # Longer than all steps together: the request ends meanwhile.
            await asyncio.sleep(0.5)
    for index in range(n):
        mine = [delta for delta in deltas if delta.index == index]
        ids = [token_id for delta in mine for token_id in delta.token_ids]
        assert ids == continuation([1, 2, 3], 20, 97)
        assert [delta.finish is not None for delta in mine] == [False] * (len(mine) - 1) + [True]


async def test_a_request_whose_text_cannot_be_made_does_not_run_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jackfield.llm.text_side.load_tokenizer", lambda *_, **__: ByteTokenizer())
    engines: list[HeldEngine] = []

    def link(events: EngineEvents) -> HeldEngine:
        engines.append(HeldEngine(events))
        return engines[0]

    def broken(*_: object) -> None:
        raise ValueError("no parser")

    llm = AsyncLLM(serving_plan("SimulatedWorker", tokenizer_mode="auto"), Registry(), link=link)
    await llm.start()
    monkeypatch.setattr("jackfield.llm.text_side.TextSide.choices", broken)
    with pytest.raises(ValueError, match="no parser"):
        await llm.collect(request([1, 2], 5, 2))
    assert len(engines[0].keys) == 2
    assert engines[0].aborted == engines[0].keys
