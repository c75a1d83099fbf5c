"""The memory store keeps the laws of its kind, and its bounds."""

from __future__ import annotations

from jackfield.contracts.response_store import StoreLimits
from jackfield.testing import PluginContract, ResponseStoreContract
from jackfield_response_stores.memory import MemoryResponseStore


class TestMemory(ResponseStoreContract):
    store = MemoryResponseStore


class TestPlugin(PluginContract):
    kind = "response_stores"
    plugin = MemoryResponseStore


async def test_the_least_recently_used_goes_first() -> None:
    store = MemoryResponseStore(StoreLimits(max_responses=2, max_bytes=1000))
    await store.put("a", b"1")
    await store.put("b", b"2")
    assert await store.get("a") == b"1"
    await store.put("c", b"3")
    assert [await store.get(name) for name in "abc"] == [b"1", None, b"3"]


async def test_as_many_go_as_the_new_one_needs() -> None:
    store = MemoryResponseStore(StoreLimits(max_responses=100, max_bytes=10))
    for name in "abcd":
        await store.put(name, b"xx")
    await store.put("e", b"12345678")
    assert [await store.get(name) for name in "abcde"] == [None, None, None, b"xx", b"12345678"]


async def test_a_record_above_the_limit_drops_no_other() -> None:
    store = MemoryResponseStore(StoreLimits(max_responses=100, max_bytes=4))
    await store.put("a", b"xx")
    await store.put("b", b"12345")
    assert await store.get("a") == b"xx" and await store.get("b") is None
