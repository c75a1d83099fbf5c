"""Vectors under way fit the room that there is for them; who comes first goes first."""

from __future__ import annotations

import asyncio

import pytest

from jackfield.llm.pooled import VectorRoom


async def test_prompts_wait_for_room_in_their_order_and_a_large_one_goes_alone() -> None:
    room, inside, order = VectorRoom(4, max_bytes=40), 0, []

    async def one(num_tokens: int) -> None:
        nonlocal inside
        async with room.room_for(num_tokens):
            order.append(num_tokens)
            inside += num_tokens
            assert inside <= 10 or inside == num_tokens
            await asyncio.sleep(0.001)
            inside -= num_tokens

    sizes = [4, 5, 6, 30, 1, 2, 3, 4, 10, 1]
    async with asyncio.timeout(10):
        await asyncio.gather(*map(one, sizes))
    assert order == sizes and inside == 0


async def test_whoever_leaves_makes_room() -> None:
    room = VectorRoom(4, max_bytes=40)

    async def fails() -> None:
        async with room.room_for(10):
            raise ZeroDivisionError

    async def waits() -> None:
        async with room.room_for(10):
            await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        await fails()
    first = asyncio.create_task(waits())
    second = asyncio.create_task(waits())
    await asyncio.sleep(0.001)
    assert room.num_waiting == 1
    second.cancel()
    first.cancel()
    await asyncio.wait({first, second})
    async with asyncio.timeout(1), room.room_for(10):
        assert room.num_waiting == 0
