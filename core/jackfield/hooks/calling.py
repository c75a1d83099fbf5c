"""Calling what plugins hooked up: those that may end the start, filters, and observers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jackfield.checkpoint import is_gguf
from jackfield.contracts.generation import ChoiceDelta, GenerationRequest, RequestRecord
from jackfield.contracts.messages import EngineStats
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.errors import RAISED, PluginError, RequestError
from jackfield.hooks.listeners import Listener, broken, call_listener, collect, flat, gather, owned
from jackfield.registry import HOOKS, PluginEntry, Registry

if TYPE_CHECKING:
    from jackfield.config.settings import Settings

log = logging.getLogger(__name__)

RequestFilter = Callable[[GenerationRequest], GenerationRequest]
ResponseFilter = Callable[[GenerationRequest, ChoiceDelta], ChoiceDelta]
PoolingRequestFilter = Callable[[PoolingRequest], PoolingRequest]
PooledFilter = Callable[[PoolingRequest, Pooled], Pooled]
Command = Callable[[list[str]], int]
T = TypeVar("T")


class Hooks:
    """What the plugins hooked up, by hook. Making one imports the plugins."""

    def __init__(
        self, entries: Iterable[PluginEntry] = (), registry: Registry | None = None
    ) -> None:
        self.entries = tuple(entries)
        listeners = collect(self.entries, registry or Registry())
        self._resolve_model = listeners["resolve_model"]
        self._adjust_config = listeners["adjust_config"]
        self.middleware = gather(listeners["asgi_middleware"])
        self.routes = gather(listeners["routes"])
        self.request_filters: list[tuple[str, RequestFilter]] = owned(listeners["request_filter"])
        self.response_filters: list[tuple[str, ResponseFilter]] = owned(
            listeners["response_filter"]
        )
        self.pooling_request_filters: list[tuple[str, PoolingRequestFilter]] = owned(
            listeners["pooling_request_filter"]
        )
        self.pooled_filters: list[tuple[str, PooledFilter]] = owned(listeners["pooled_filter"])
        self._commands = listeners["commands"]
        self._startup = listeners["startup"]
        self._shutdown = listeners["shutdown"]
        self._request_finished = listeners["request_finished"]
        self._step_statistics = listeners["step_statistics"]
        self._metrics = listeners["metrics"]
        self._silenced: set[Listener] = set()

    @classmethod
    def installed(cls, registry: Registry) -> Hooks:
        """The hooks of every distribution that the registry may use."""
        return cls(registry.list(HOOKS), registry)

    @property
    def has_filters(self) -> bool:
        """Whether any request or answer is filtered."""
        return bool(
            self.request_filters
            or self.response_filters
            or self.pooling_request_filters
            or self.pooled_filters
        )

    @property
    def commands(self) -> Mapping[str, Command]:
        """Commands by name; ``PluginError`` where two plugins offer the same one."""
        found: dict[str, Command] = {}
        for listener in self._commands:
            offered = call_listener(listener)
            if not isinstance(offered, Mapping):
                raise broken(listener, f"returned {offered!r:.60} and no mapping")
            for name, command in offered.items():
                if name in found:
                    raise PluginError(f"command {name!r} of {listener.owner} exists already")
                found[name] = command
        return found

    def resolve_model(self, model: str, settings: Settings) -> Path | None:
        """Where a plugin has the model; None where none knows it."""
        for listener in self._resolve_model:
            found = call_listener(listener, model=model, settings=settings)
            if found is None:
                continue
            path = Path(found) if isinstance(found, str | Path) else None
            if path is None or not (path.is_dir() or is_gguf(path)):
                raise broken(listener, f"returned {str(found)!r:.80}, which is no directory")
            return path
        return None

    def adjust_config(self, config: Mapping[str, object], directory: Path) -> dict[str, object]:
        """The config as the plugins leave it."""
        for listener in self._adjust_config:
            adjusted = call_listener(listener, config=config, directory=directory)
            if adjusted is not None and not isinstance(adjusted, Mapping):
                raise broken(listener, f"returned {adjusted!r:.60} and no mapping")
            config = config if adjusted is None else adjusted
        return dict(config)

    @contextmanager
    def running(self, settings: Settings) -> Iterator[None]:
        """Tells that the server is about to start (``BrokenPluginError`` if a plugin raises), and
        behind the block, whatever has ended it, that the server has stopped."""
        for listener in self._startup:
            call_listener(listener, settings=settings)
        try:
            yield
        finally:
            self._observe(self._shutdown)

    def request_finished(self, record: RequestRecord) -> None:
        """Tells that a request ended. Never raises. O(plugins that listen)."""
        self._observe(self._request_finished, record=record)

    def step_statistics(self, statistics: EngineStats) -> None:
        """Tells the engine's numbers. Never raises. O(plugins that listen)."""
        self._observe(self._step_statistics, statistics=statistics)

    def collectors(self) -> list[Any]:
        """The plugins' Prometheus collectors. Never raises."""
        return flat(self._observe(self._metrics))

    def filter_request(self, request: GenerationRequest) -> GenerationRequest:
        """The request as the filters leave it; ``RequestError`` where one refuses or fails."""
        return _filtered(self.request_filters, request, "request", request.request_id)

    def filter_delta(self, request: GenerationRequest, delta: ChoiceDelta) -> ChoiceDelta:
        """The delta as the filters leave it; ``RequestError`` where one fails."""
        return _filtered(self.response_filters, delta, "response", request.request_id, request)

    def filter_pooling_request(self, request: PoolingRequest) -> PoolingRequest:
        """As ``filter_request``."""
        return _filtered(self.pooling_request_filters, request, "request", request.request_id)

    def filter_pooled(self, request: PoolingRequest, pooled: Pooled) -> Pooled:
        """As ``filter_delta``."""
        return _filtered(self.pooled_filters, pooled, "response", request.request_id, request)

    def _observe(self, listeners: Sequence[Listener], **values: object) -> list[Any]:
        """What the observers return. One that raises is logged the first time."""
        results = []
        for listener in listeners:
            try:
                results.append(listener.call(**values))
            except RAISED:
                if listener not in self._silenced:
                    self._silenced.add(listener)
                    log.exception("%s raised; this is logged once", listener.owner)
        return results


def _filtered(
    filters: Iterable[tuple[str, Callable[..., T]]],
    value: T,
    what: str,
    request_id: str,
    *before: object,
) -> T:
    """The value as the filters leave it, each called with what is ``before`` it. Requests may be
    refused; whatever else a filter does wrong fails the request with a 500."""
    for owner, function in filters:
        try:
            filtered = function(*before, value)
            if not isinstance(filtered, type(value)):
                raise TypeError(f"it returned {filtered!r:.60} and no {type(value).__name__}")
        except RAISED as error:
            if isinstance(error, RequestError) and what == "request":
                raise
            log.exception("request %s: a filter of %s failed", request_id, owner)
            failure = RequestError(f"a {what} filter of this server failed")
            failure.status = 500
            raise failure from error
        value = filtered
    return value
