"""Where finished responses are kept, so that later requests can continue them.

Kind: ``jackfield.response_stores`` (``--response-store``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """How much a store may keep; the least recently used go first. 0 of either: nothing is kept."""

    max_responses: int
    max_bytes: int
    """Of the records together."""


class ResponseStore(Protocol):
    """Records by id. Made once, as ``cls(limits)``, before the server starts.

    Called in the server's event loop, of many requests at a time: a call may wait, and must not
    hold the loop. Ids are hard to guess and never used twice; records are JSON, a few hundred
    bytes to some megabytes, and not changed. An exception costs the request that needed the call.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def __init__(self, limits: StoreLimits) -> None: ...

    async def put(self, response_id: str, record: bytes) -> None:
        """Keeps a record; may drop others, or this one if it is above the limits by itself."""
        ...

    async def get(self, response_id: str) -> bytes | None:
        """The record; None if it was never put, or has been dropped or deleted."""
        ...

    async def delete(self, response_id: str) -> bool:
        """Forgets a record; whether there was one."""
        ...
