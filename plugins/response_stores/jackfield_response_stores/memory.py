"""Responses in the memory of the API process; they are gone when it ends."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from jackfield.contracts.response_store import StoreLimits


class MemoryResponseStore:
    """Least recently used first out. O(1) a call, but for what must go to make room."""

    name: ClassVar[str] = "memory"
    api_version: ClassVar[int] = 1

    def __init__(self, limits: StoreLimits) -> None:
        self._limits = limits
        self._records: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes = 0

    async def put(self, response_id: str, record: bytes) -> None:
        """Keeps a record, unless it is too long by itself."""
        await self.delete(response_id)
        if len(record) > self._limits.max_bytes:
            return
        self._records[response_id] = record
        self._num_bytes += len(record)
        limits = self._limits
        while len(self._records) > limits.max_responses or self._num_bytes > limits.max_bytes:
            _, oldest = self._records.popitem(last=False)
            self._num_bytes -= len(oldest)

    async def get(self, response_id: str) -> bytes | None:
        """The record, which is the last to go from now on."""
        record = self._records.get(response_id)
        if record is not None:
            self._records.move_to_end(response_id)
        return record

    async def delete(self, response_id: str) -> bool:
        """Forgets a record."""
        record = self._records.pop(response_id, None)
        if record is None:
            return False
        self._num_bytes -= len(record)
        return True
