"""Whoever streams gets everything, however slowly it takes."""

from __future__ import annotations

import asyncio

import pytest
from tests.core.llm.test_supervision import importable_workers as importable_workers
from tests.core.llm.test_supervision import request, running

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
