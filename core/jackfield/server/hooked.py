"""What installed hooks add to the server: filters around the door, observers, metrics."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from prometheus_client import CollectorRegistry, generate_latest

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.errors import RAISED
from jackfield.hooks import Hooks
from jackfield.server.door import Generation

log = logging.getLogger(__name__)


class HookObserver:
    """Passes the end of each request on to the hooks."""

    def __init__(self, hooks: Hooks) -> None:
        self.request_finished = hooks.request_finished

    def inter_token(self, seconds: float, count: int) -> None:
        """Nobody listens to single tokens."""


class PluginMetrics:
    """The exposition of the plugins' collectors; one that raises is left out, and logged once."""

    def __init__(self, hooks: Hooks) -> None:
        self._collectors = hooks.collectors()
        self._broken: set[int] = set()

    def text(self) -> bytes:
        """The exposition format; empty without collectors."""
        return b"".join(map(self._one, self._collectors))

    def _one(self, collector: Any) -> bytes:
        registry = CollectorRegistry()
        try:
            registry.register(collector)
            return generate_latest(registry)
        except RAISED:
            if id(collector) not in self._broken:
                self._broken.add(id(collector))
                log.exception("metrics collector %s failed; this is logged once", type(collector))
            return b""


class Filtered:
    """Generation whose requests and deltas pass the plugins' filters."""

    def __init__(self, llm: Generation, hooks: Hooks) -> None:
        self._llm = llm
        self._hooks = hooks

    async def stream(self, request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        """The door's, filtered."""
        request = self._hooks.filter_request(request)
        source = cast("AsyncGenerator[list[ChoiceDelta]]", self._llm.stream(request))
        async with aclosing(source) as stream:
            async for deltas in stream:
                yield [self._hooks.filter_delta(request, delta) for delta in deltas]

    async def collect(self, request: GenerationRequest) -> list[ChoiceDelta]:
        """The door's, filtered."""
        request = self._hooks.filter_request(request)
        deltas = await self._llm.collect(request)
        return [self._hooks.filter_delta(request, delta) for delta in deltas]

    async def pool(self, request: PoolingRequest) -> Pooled:
        """The door's, filtered."""
        request = self._hooks.filter_pooling_request(request)
        return self._hooks.filter_pooled(request, await self._llm.pool(request))


def filtered(llm: Generation, hooks: Hooks) -> Generation:
    """The door itself, where no plugin filters anything."""
    return Filtered(llm, hooks) if hooks.has_filters else llm
