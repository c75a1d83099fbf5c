"""``jackfield serve MODEL``: options to plan, then the server."""

from __future__ import annotations

from jackfield.config.command_line import parse_arguments
from jackfield.config.settings import Settings

HELP = "--help=plugin:"


def main(argv: list[str]) -> int:
    """Serves until a signal comes or the engine dies; the exit status."""
    for word in argv:
        if word.startswith(HELP):
            settings, _ = parse_arguments([each for each in argv if each != word])
            return _help(word.removeprefix(HELP), settings)
    settings, notes = parse_arguments(argv, prog="jackfield serve")
    # Imports stand below the parsing: `serve --help` must not pay for them.
    from jackfield.config.log_output import log_output

    with log_output("debug" if settings.verbose else settings.log_level, notes):
        return _serve(settings, argv)


def _help(plugin: str, settings: Settings) -> int:
    from jackfield.cli.plugins.option_help import option_help
    from jackfield.registry import Registry

    print("\n".join(option_help(plugin, Registry.for_settings(settings))))
    return 0


def _serve(settings: Settings, argv: list[str]) -> int:
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

    return run(settings, plan, registry, hooks, argv)
