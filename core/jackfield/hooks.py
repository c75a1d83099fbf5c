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
from typing import TYPE_CHECKING, Any

import pluggy

from jackfield.config.suggestion import did_you_mean
from jackfield.contracts.generation import ChoiceDelta, GenerationRequest, RequestRecord
from jackfield.contracts.messages import EngineStats
from jackfield.errors import BrokenPluginError, PluginError, RequestError
from jackfield.registry import PluginEntry, installed_entries

if TYPE_CHECKING:
    from jackfield.config.settings import Settings

log = logging.getLogger(__name__)

KIND = "hooks"
hookspec = pluggy.HookspecMarker("jackfield")
hookimpl = pluggy.HookimplMarker("jackfield")

RequestFilter = Callable[[GenerationRequest], GenerationRequest]
ResponseFilter = Callable[[GenerationRequest, ChoiceDelta], ChoiceDelta]
Command = Callable[[list[str]], int]


class HookSpecs:
    """What a plugin may implement; it names only the arguments that it wants."""

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

    def __init__(self, entries: Iterable[PluginEntry] = ()) -> None:
        listeners = _collect(list(entries))
        self.middleware = _gather(listeners["asgi_middleware"])
        self.routes = _gather(listeners["routes"])
        self.request_filters: list[RequestFilter] = _gather(listeners["request_filter"])
        self.response_filters: list[ResponseFilter] = _gather(listeners["response_filter"])
        self._commands = listeners["commands"]
        self._startup = listeners["startup"]
        self._shutdown = listeners["shutdown"]
        self._request_finished = listeners["request_finished"]
        self._step_statistics = listeners["step_statistics"]
        self._metrics = listeners["metrics"]
        self._silenced: set[Listener] = set()

    @classmethod
    def installed(cls, *, bundled_only: bool = False) -> Hooks:
        """The hooks of every installed distribution, or of Jackfield's own (``--safe-mode``)."""
        entries = installed_entries([KIND])[KIND]
        return cls(entry for entry in entries if entry.is_bundled or not bundled_only)

    @property
    def commands(self) -> Mapping[str, Command]:
        """Commands by name; ``PluginError`` where two plugins offer the same one."""
        found: dict[str, Command] = {}
        for listener in self._commands:
            for name, command in _call(listener).items():
                if name in found:
                    raise PluginError(f"command {name!r} of {listener.owner} exists already")
                found[name] = command
        return found

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
        for request_filter in self.request_filters:
            try:
                request = request_filter(request)
            except RequestError:
                raise
            except Exception as error:
                log.exception("request %s: a request filter failed", request.request_id)
                raise _failed("request") from error
        return request

    def filter_delta(self, request: GenerationRequest, delta: ChoiceDelta) -> ChoiceDelta:
        """The delta as the filters leave it; ``RequestError`` where one fails."""
        for response_filter in self.response_filters:
            try:
                delta = response_filter(request, delta)
            except Exception as error:
                log.exception("request %s: a response filter failed", request.request_id)
                raise _failed("response") from error
        return delta

    def _observe(self, listeners: Sequence[Listener], **values: object) -> list[Any]:
        """What the observers return. One that raises is logged the first time."""
        results = []
        for listener in listeners:
            try:
                results.append(listener.call(**values))
            except Exception:
                if listener not in self._silenced:
                    self._silenced.add(listener)
                    log.exception("%s raised; this is logged once", listener.owner)
        return results


def _failed(what: str) -> RequestError:
    error = RequestError(f"a {what} filter of this server failed")
    error.status = 500
    return error


def _collect(entries: Sequence[PluginEntry]) -> dict[str, list[Listener]]:
    """The listeners of each hook in calling order: plugins by name, ``tryfirst`` before all."""
    manager = pluggy.PluginManager("jackfield")
    manager.add_hookspecs(HookSpecs)
    owners: dict[str, PluginEntry] = {}
    # pluggy calls what was registered last first.
    for entry in sorted(entries, key=lambda each: (each.name, each.distribution), reverse=True):
        name = f"{entry.distribution}:{entry.name}"
        owners[name] = entry
        _register(manager, entry, name)
    names = [name for name in vars(HookSpecs) if not name.startswith("_")]
    return {hook: _listeners(manager, hook, owners) for hook in names}


def _register(manager: pluggy.PluginManager, entry: PluginEntry, name: str) -> None:
    remedy = f"uninstall {entry.distribution}, correct it, or start with --safe-mode"
    try:
        plugin = _load(entry.value)
        manager.register(plugin, name=name)
    except KeyboardInterrupt:
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


def _load(value: str) -> Any:
    module, _, attribute = value.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found() if isinstance(found, type) else found


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
    except Exception as error:
        raise BrokenPluginError(
            f"{listener.owner} is broken: {listener.function.__name__} raised "
            f"{type(error).__name__}: {_one_line(error)}; correct it, or start with --safe-mode"
        ) from error


def _one_line(error: BaseException) -> str:
    """What pluggy says stands on several lines, the cause on the last one."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1] if isinstance(error, pluggy.PluginValidationError) else lines[0]
