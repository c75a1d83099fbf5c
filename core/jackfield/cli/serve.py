"""``jackfield serve MODEL``: options to plan, then the server."""

from __future__ import annotations

from jackfield.config.command_line import parse_arguments
from jackfield.config.settings import Settings


def main(argv: list[str]) -> int:
    """Serves until a signal comes or the engine dies; the exit status."""
    settings, notes = parse_arguments(argv, prog="jackfield serve")
    # Imports stand below the parsing: `serve --help` must not pay for them.
    from jackfield.cli.log_output import log_output

    with log_output("debug" if settings.verbose else settings.log_level, notes):
        return _serve(settings)


def _serve(settings: Settings) -> int:
    from jackfield.planning import make_plan
    from jackfield.registry import Registry
    from jackfield.server.listening import bind
    from jackfield.server.options import options_from_settings

    registry = Registry(settings.plugin_sources, bundled_only=settings.safe_mode)
    # The address may be taken: better to know before a model is downloaded.
    bind(options_from_settings(settings)).close()
    plan = make_plan(settings, registry)

    from jackfield.server.run import run

    return run(settings, plan, registry)
