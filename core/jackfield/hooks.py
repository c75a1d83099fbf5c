"""All-of-N plugins: every installed distribution may listen in, in the API process.

Entry-point group ``jackfield.hooks``; the value is a module or an object whose functions are
marked with ``hookimpl`` and named as the methods of ``HookSpecs``. pluggy collects them once,
at the start; afterwards there are plain lists, so that a request pays for what is installed
and nothing else.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from jackfield.checkpoint import is_gguf
from jackfield.config.suggestion import did_you_mean
from jackfield.contracts.generation import ChoiceDelta, GenerationRequest, RequestRecord
from jackfield.contracts.messages import EngineStats
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.errors import (
    RAISED,
    BrokenPluginError,
    JackfieldError,
    PluginError,
    RequestError,
)
from jackfield.registry import HOOKS, PluginEntry, Registry
from jackfield.registry.options import make_options

if TYPE_CHECKING:
    from jackfield.config.settings import Settings

log = logging.getLogger(__name__)

hookspec = pluggy.HookspecMarker("jackfield")
hookimpl = pluggy.HookimplMarker("jackfield")

RequestFilter = Callable[[GenerationRequest], GenerationRequest]
ResponseFilter = Callable[[GenerationRequest, ChoiceDelta], ChoiceDelta]
PoolingRequestFilter = Callable[[PoolingRequest], PoolingRequest]
PooledFilter = Callable[[PoolingRequest, Pooled], Pooled]
Command = Callable[[list[str]], int]
T = TypeVar("T")


class HookSpecs:
    """What a plugin may implement; it names only the arguments that it wants."""

    @hookspec
    def resolve_model(self, model: str, settings: Settings) -> Any:
        """The directory of a model (or its GGUF file) that is named in a way only this plugin
        knows: a file of another format, a remote store. None for any other name; the first answer
        counts. Called once, before the checkpoint is looked for; an exception ends the start."""

    @hookspec
    def adjust_config(self, config: Mapping[str, object], directory: Path) -> Any:
        """The ``config.json`` to go on with, where it needs a change; else None. Each plugin gets
        what the one before it made. Called once, before anything is decided by it; an exception
        ends the start."""

    @hookspec
    def asgi_middleware(self) -> Any:
        """An ASGI middleware class (made as ``cls(app)``), or a list of them, outermost first.
        Called once, before the server starts; an exception ends the start."""

    @hookspec
    def routes(self) -> Any:
        """A ``fastapi.APIRouter``, or a list of them. Called once, before the server starts; an
        exception ends the start."""

    @hookspec
    def commands(self) -> Any:
        """A mapping of command names to functions ``(words) -> exit status``. Called when
        ``jackfield NAME`` is none of the kernel's commands."""

    @hookspec
    def request_filter(self) -> Any:
        """A function ``(request) -> request`` that sees every ``GenerationRequest`` on its way to
        the engine. It may return another one, or raise ``RequestError`` to refuse it; any other
        exception fails that request alone. Called in the event loop: it must not wait."""

    @hookspec
    def response_filter(self) -> Any:
        """A function ``(request, delta) -> delta`` that sees every ``ChoiceDelta`` on its way
        out. An exception fails that request alone. Called in the event loop: it must not wait."""

    @hookspec
    def pooling_request_filter(self) -> Any:
        """A function ``(request) -> request`` that sees every ``PoolingRequest``, as
        ``request_filter`` sees what generates: one for each prompt of an embedding, a score or a
        ranking."""

    @hookspec
    def pooled_filter(self) -> Any:
        """A function ``(request, pooled) -> pooled`` that sees what each of them has ended in,
        before it is cut, normalized or made a probability; as ``response_filter``."""

    @hookspec
    def startup(self, settings: Settings) -> None:
        """The server is about to start. An exception ends the start."""

    @hookspec
    def shutdown(self) -> None:
        """The server has stopped. Observer."""

    @hookspec
    def request_finished(self, record: RequestRecord) -> None:
        """A request ended, whatever the reason. Observer, in the event loop."""

    @hookspec
    def step_statistics(self, statistics: EngineStats) -> None:
        """The engine's gauges and counters, at most a few times a second. Observer."""

    @hookspec
    def metrics(self) -> Any:
        """A Prometheus collector (it has ``collect()``), or a list of them, for ``/metrics``.
        Called once, before the server starts. Observer."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One function of one plugin, called with the arguments it names."""

    owner: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]

    def call(self, **values: object) -> Any:
        """Calls it with those of the values that it names."""
        return self.function(**{name: values[name] for name in self.arguments})


class Hooks:
    """What the plugins hooked up, by hook. Making one imports the plugins."""

    def __init__(
        self, entries: Iterable[PluginEntry] = (), registry: Registry | None = None
    ) -> None:
        self.entries = tuple(entries)
        listeners = _collect(self.entries, registry or Registry())
        self._resolve_model = listeners["resolve_model"]
        self._adjust_config = listeners["adjust_config"]
        self.middleware = _gather(listeners["asgi_middleware"])
        self.routes = _gather(listeners["routes"])
        self.request_filters: list[tuple[str, RequestFilter]] = _owned(listeners["request_filter"])
        self.response_filters: list[tuple[str, ResponseFilter]] = _owned(
            listeners["response_filter"]
        )
        self.pooling_request_filters: list[tuple[str, PoolingRequestFilter]] = _owned(
            listeners["pooling_request_filter"]
        )
        self.pooled_filters: list[tuple[str, PooledFilter]] = _owned(listeners["pooled_filter"])
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
            offered = _call(listener)
            if not isinstance(offered, Mapping):
                raise _broken(listener, f"returned {offered!r:.60} and no mapping")
            for name, command in offered.items():
                if name in found:
                    raise PluginError(f"command {name!r} of {listener.owner} exists already")
                found[name] = command
        return found

    def resolve_model(self, model: str, settings: Settings) -> Path | None:
        """Where a plugin has the model; None where none knows it."""
        for listener in self._resolve_model:
            found = _call(listener, model=model, settings=settings)
            if found is None:
                continue
            path = Path(found) if isinstance(found, str | Path) else None
            if path is None or not (path.is_dir() or is_gguf(path)):
                raise _broken(listener, f"returned {str(found)!r:.80}, which is no directory")
            return path
        return None

    def adjust_config(self, config: Mapping[str, object], directory: Path) -> dict[str, object]:
        """The config as the plugins leave it."""
        for listener in self._adjust_config:
            adjusted = _call(listener, config=config, directory=directory)
            if adjusted is not None and not isinstance(adjusted, Mapping):
                raise _broken(listener, f"returned {adjusted!r:.60} and no mapping")
            config = config if adjusted is None else adjusted
        return dict(config)

    def startup(self, settings: Settings) -> None:
        """Tells that the server is about to start; ``BrokenPluginError`` if a plugin raises."""
        for listener in self._startup:
            _call(listener, settings=settings)

    def shutdown(self) -> None:
        """Tells that the server has stopped. Never raises."""
        self._observe(self._shutdown)

    def request_finished(self, record: RequestRecord) -> None:
        """Tells that a request ended. Never raises. O(plugins that listen)."""
        self._observe(self._request_finished, record=record)

    def step_statistics(self, statistics: EngineStats) -> None:
        """Tells the engine's numbers. Never raises. O(plugins that listen)."""
        self._observe(self._step_statistics, statistics=statistics)

    def collectors(self) -> list[Any]:
        """The plugins' Prometheus collectors. Never raises."""
        return _flat(self._observe(self._metrics))

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


def _collect(entries: Sequence[PluginEntry], registry: Registry) -> dict[str, list[Listener]]:
    """The listeners of each hook in calling order: plugins by name, ``tryfirst`` before all."""
    manager = pluggy.PluginManager("jackfield")
    manager.add_hookspecs(HookSpecs)
    owners: dict[str, PluginEntry] = {}
    # pluggy calls what was registered last first.
    for entry in sorted(entries, key=lambda each: (each.name, each.distribution), reverse=True):
        name = f"{entry.distribution}:{entry.name}"
        owners[name] = entry
        _register(manager, entry, name, registry)
    names = [name for name in vars(HookSpecs) if not name.startswith("_")]
    return {hook: _listeners(manager, hook, owners) for hook in names}


def _register(
    manager: pluggy.PluginManager, entry: PluginEntry, name: str, registry: Registry
) -> None:
    remedy = (
        f"uninstall {entry.distribution}, correct it, or leave it out with "
        f"--disable-plugin {entry.distribution}"
    )
    registry.check_hook(entry)
    try:
        plugin = _load(entry, registry.options(HOOKS, entry.name))
        manager.register(plugin, name=name)
    except (KeyboardInterrupt, JackfieldError):
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end the program
        raise BrokenPluginError(
            f"{entry} is broken: {type(error).__name__}: {_one_line(error)}; {remedy}"
        ) from error
    known = [hook for hook in vars(HookSpecs) if not hook.startswith("_")]
    for caller in manager.get_hookcallers(plugin) or ():
        if not caller.has_spec():
            raise BrokenPluginError(
                f"{entry} implements the unknown hook {caller.name!r}"
                f"{did_you_mean(caller.name, known)}; {remedy}"
            )


def load_hooks(entry: PluginEntry) -> Any:
    """Imports the module or the class of a hook plugin."""
    module, _, attribute = entry.value.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found


def _load(entry: PluginEntry, values: Mapping[str, object]) -> Any:
    found = load_hooks(entry)
    options = make_options(str(entry), found, values)
    if not isinstance(found, type):
        return found
    return found() if options is None else found(options=options)


def _listeners(
    manager: pluggy.PluginManager, hook: str, owners: Mapping[str, PluginEntry]
) -> list[Listener]:
    found = []
    for implementation in reversed(getattr(manager.hook, hook).get_hookimpls()):
        owner = owners[implementation.plugin_name]
        if implementation.wrapper or implementation.hookwrapper:
            raise BrokenPluginError(f"{owner}: {hook} is a wrapper, which Jackfield has no use for")
        found.append(Listener(str(owner), implementation.function, tuple(implementation.argnames)))
    return found


def _owned(listeners: Iterable[Listener]) -> list[tuple[str, Any]]:
    """Each function that they return, with whose it is."""
    owned = []
    for listener in listeners:
        for function in _flat([_call(listener)]):
            if not callable(function):
                raise _broken(listener, f"returned {function!r:.60} and no function")
            owned.append((listener.owner, function))
    return owned


def _gather(listeners: Iterable[Listener]) -> list[Any]:
    """What each returns, in one list; a plugin that raises ends the start."""
    return _flat(_call(listener) for listener in listeners)


def _flat(results: Iterable[Any]) -> list[Any]:
    flat: list[Any] = []
    for result in results:
        flat.extend(result if isinstance(result, list | tuple) else [result])
    return [each for each in flat if each is not None]


def _call(listener: Listener, **values: object) -> Any:
    try:
        return listener.call(**values)
    except JackfieldError:
        raise
    except RAISED as error:
        raise _broken(listener, f"raised {type(error).__name__}: {_one_line(error)}") from error


def _broken(listener: Listener, what: str) -> BrokenPluginError:
    return BrokenPluginError(
        f"{listener.owner} is broken: {listener.function.__name__} {what}; correct it, or start "
        "with --safe-mode"
    )


def _one_line(error: BaseException) -> str:
    """What pluggy says stands on several lines, the cause on the last one."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1] if isinstance(error, pluggy.PluginValidationError) else lines[0]
