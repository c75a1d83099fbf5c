"""The laws of a response store. Subclass ``ResponseStoreContract`` in a test file::

class TestMine(ResponseStoreContract):
    store = MyResponseStore
"""

from __future__ import annotations

import asyncio
import secrets
from typing import ClassVar

from jackfield.contracts.response_store import ResponseStore, StoreLimits
from jackfield.testing.plugins import assert_conforms

LIMITS = StoreLimits(max_responses=8, max_bytes=4096)


class ResponseStoreContract:
    """Tests that hold for every store. Ids are new each time, as they are in the server: a store
    that outlives the process may hold others."""

    store: ClassVar[type[ResponseStore]]

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("response_stores", type(self).store)

    def test_what_was_put_is_got_until_it_is_deleted(self) -> None:
        async def check() -> None:
            store, name = self.store(LIMITS), secrets.token_hex(16)
            assert await store.get(name) is None
            assert not await store.delete(name)
            await store.put(name, b'{"a": "\xc3\xbc"}')
            assert await store.get(name) == b'{"a": "\xc3\xbc"}'
            assert await store.delete(name)
            assert await store.get(name) is None
            assert not await store.delete(name)

        asyncio.run(check())

    def test_the_latest_are_kept_within_the_limits(self) -> None:
        async def check() -> None:
            store = self.store(LIMITS)
            names = [secrets.token_hex(16) for _ in range(3 * LIMITS.max_responses)]
            for name in names:
                await store.put(name, name.encode())
            records = [await store.get(name) for name in names]
            assert records[-1] == names[-1].encode()
            kept = [record for record in records if record is not None]
            assert len(kept) <= LIMITS.max_responses
            assert kept == [name.encode() for name in names[-len(kept) :]]

        asyncio.run(check())

    def test_bytes_are_bounded_too(self) -> None:
        async def check() -> None:
            store = self.store(LIMITS)
            names = [secrets.token_hex(16) for _ in range(LIMITS.max_responses)]
            for name in names:
                await store.put(name, b"x" * (LIMITS.max_bytes // 2))
            kept = [name for name in names if await store.get(name) is not None]
            assert len(kept) <= 2

        asyncio.run(check())

    def test_nothing_is_kept_where_nothing_may_be(self) -> None:
        async def check() -> None:
            for limits in (
                StoreLimits(max_responses=0, max_bytes=4096),
                StoreLimits(max_responses=8, max_bytes=0),
            ):
                store, name = self.store(limits), secrets.token_hex(16)
                await store.put(name, b"{}")
                assert await store.get(name) is None

        asyncio.run(check())

    def test_calls_at_the_same_time_do_not_mix(self) -> None:
        async def check() -> None:
            store = self.store(LIMITS)
            names = [secrets.token_hex(16) for _ in range(LIMITS.max_responses)]
            await asyncio.gather(*(store.put(name, name.encode()) for name in names))
            records = await asyncio.gather(*(store.get(name) for name in names))
            assert records == [name.encode() for name in names]

        asyncio.run(check())
