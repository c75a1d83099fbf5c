"""What a hook plugin may implement: the methods of ``HookSpecs``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from jackfield.contracts.generation import RequestRecord
from jackfield.contracts.messages import EngineStats

if TYPE_CHECKING:
    from jackfield.config.settings import Settings

hookspec = pluggy.HookspecMarker("jackfield")
hookimpl = pluggy.HookimplMarker("jackfield")


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
