"""``POST /invocations``, SageMaker's path for all: which request a body is, by its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jackfield.errors import RequestError
from jackfield.server.generation_route import Deliverable, Prepare

PATH = "/invocations"

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("messages",),
    "/v1/completions": ("prompt",),
    "/rerank": ("query",),
    "/score": ("text_1", "data_1", "queries"),
    "/v1/embeddings": ("input", "messages"),
    "/classify": ("input", "messages"),
    "/pooling": ("input", "messages"),
}
"""What tells the requests of a path from others, in the order in which they are tried."""


class Invocations:
    """As the first of the server's paths that has one of the body's fields."""

    def __init__(self, preparers: Mapping[str, Prepare]) -> None:
        self._preparers = {path: preparers[path] for path in _FIELDS if path in preparers}

    async def __call__(
        self, data: dict[str, Any], num_bytes: int, header_id: str | None
    ) -> Deliverable:
        """As ``Prepare`` has it."""
        for path, prepare in self._preparers.items():
            if any(data.get(name) is not None for name in _FIELDS[path]):
                return await prepare(data, num_bytes, header_id)
        paths = ", ".join(self._preparers)
        raise RequestError(f"The body has no field of a request to {paths}", param=None)
