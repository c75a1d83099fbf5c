"""``jackfield serve MODEL``: options to plan, then the server."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from jackfield.config.bytecode import keep_bytecode
from jackfield.engine.garbage_collection import collect_rarely
from jackfield.engine.spawning import SpawnedEngine, early_engine

if TYPE_CHECKING:
    from jackfield.config.settings import Settings

HELP = "--help=plugin:"
_HELP_WORDS = ("-h", "--help")


class _Terminated(KeyboardInterrupt):
    """SIGTERM came before the server listens for it. No error of a plugin, in which it may come."""


def main(argv: list[str]) -> int:
    """Serves until a signal comes or the engine dies; the exit status."""
    if any(word in _HELP_WORDS or word.startswith("--help=") for word in argv):
        return _help(argv)
    # Before anything else: the engine imports torch while its plan is made. Even reading the
    # command line takes a quarter of a second of imports.
    keep_bytecode()
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with early_engine() as spawned:
            collect_rarely()
            return _serve(argv, spawned)
    except _Terminated:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _help(argv: list[str]) -> int:
    from jackfield.config.command_line import parse_arguments

    for word in argv:
        if word.startswith(HELP):
            settings, _ = parse_arguments([each for each in argv if each != word])
            return _plugin_help(word.removeprefix(HELP), settings)
    # vLLM's --help=GROUP is for a part of the help; here all of it is shown.
    words = ["--help" if word.startswith("--help=") else word for word in argv]
    parse_arguments(words, prog="jackfield serve")
    return 0


def _plugin_help(plugin: str, settings: Settings) -> int:
    from jackfield.cli.plugins.option_help import option_help
    from jackfield.registry import Registry

    print("\n".join(option_help(plugin, Registry.for_settings(settings))))
    return 0


def _serve(argv: list[str], spawned: SpawnedEngine) -> int:
    from jackfield.config.command_line import parse_arguments
    from jackfield.config.log_output import log_output
    from jackfield.config.settings import require_key_if_meant

    settings, notes = parse_arguments(argv, prog="jackfield serve")
    require_key_if_meant(settings)
    with log_output("debug" if settings.verbose else settings.log_level, notes):
        return _serve_settings(settings, argv, spawned)


def _serve_settings(settings: Settings, argv: list[str], spawned: SpawnedEngine) -> int:
    from jackfield.planning import make_plan
    from jackfield.registry import HOOKS, Registry
    from jackfield.server.listening import bind
    from jackfield.server.options import options_from_settings

    registry = Registry.for_settings(settings)
    # The address may be taken: better to know before a model is downloaded.
    bind(options_from_settings(settings)).close()
    hooks = None
    if registry.list(HOOKS):
        from jackfield.hooks import Hooks

        hooks = Hooks.installed(registry)
    plan = make_plan(settings, registry, hooks)

    from jackfield.server.run import run

    return run(settings, plan, registry, hooks, argv, spawned)
