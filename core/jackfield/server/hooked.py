"""What installed hooks add to the server: filters around the door, observers, metrics."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry, generate_latest

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.contracts.messages import EngineReady, EngineStats
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.contracts.text import Tokenizer
from jackfield.errors import RAISED
from jackfield.hooks import Hooks
from jackfield.server.door import Door, Plan

if TYPE_CHECKING:
    from jackfield.llm import Observer
    from jackfield.llm.parser_counts import ParserCounts
    from jackfield.text.prompt import PromptBuilder

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


class FilteredDoor:
    """A door whose requests and deltas pass the plugins' filters."""

    def __init__(self, llm: Door, hooks: Hooks) -> None:
        self._llm = llm
        self._hooks = hooks

    @property
    def plan(self) -> Plan:
        """The door's."""
        return self._llm.plan

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The door's."""
        return self._llm.tokenizer

    @property
    def prompts(self) -> PromptBuilder:
        """The door's."""
        return self._llm.prompts

    @property
    def ready(self) -> EngineReady | None:
        """The door's."""
        return self._llm.ready

    @property
    def stats(self) -> EngineStats | None:
        """The door's."""
        return self._llm.stats

    @property
    def max_model_len(self) -> int:
        """The door's."""
        return self._llm.max_model_len

    @property
    def is_ready(self) -> bool:
        """The door's."""
        return self._llm.is_ready

    @property
    def is_asleep(self) -> bool:
        """The door's."""
        return self._llm.is_asleep

    @property
    def num_restarts(self) -> int:
        """The door's."""
        return self._llm.num_restarts

    @property
    def parser_counts(self) -> Sequence[ParserCounts]:
        """The door's."""
        return self._llm.parser_counts

    @property
    def num_waiting(self) -> int:
        """The door's."""
        return self._llm.num_waiting

    def observe(self, observer: Observer) -> None:
        """The door's."""
        self._llm.observe(observer)

    def reset_prefix_cache(self) -> None:
        """The door's."""
        self._llm.reset_prefix_cache()

    async def sleep(self, level: int) -> None:
        """The door's."""
        await self._llm.sleep(level)

    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> list[object]:
        """The door's."""
        return await self._llm.collective_rpc(method, timeout, args, kwargs)

    async def wake_up(self) -> None:
        """The door's."""
        await self._llm.wake_up()

    def tool_structure(
        self, tools: Sequence[Mapping[str, object]], choice: str, *, parallel: bool
    ) -> Mapping[str, object] | None:
        """The door's."""
        return self._llm.tool_structure(tools, choice, parallel=parallel)

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


def hooked_door(llm: Door, hooks: Hooks) -> Door:
    """The door with the hooks' observers and, where there are any, filters."""
    llm.observe(HookObserver(hooks))
    return FilteredDoor(llm, hooks) if hooks.has_filters else llm
