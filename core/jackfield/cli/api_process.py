"""One of several API processes: ``python -m jackfield.cli.api_process CONTROL LISTENER``.

Both are file descriptors: the connection to the keeper that has spawned it, which sends the command
line, and the socket to serve on.
"""

from __future__ import annotations

import signal
import socket
import sys

from jackfield.config.command_line import parse_arguments
from jackfield.config.log_output import log_output
from jackfield.config.settings import Settings
from jackfield.engine.process import die_with_parent
from jackfield.errors import ConfigError, JackfieldError
from jackfield.planning import make_plan
from jackfield.registry import HOOKS, Registry
from jackfield.server.processes.control import ApiFailed, Control, Failure, StartApi, ToApi
from jackfield.server.processes.member import serve


def main(arguments: list[str]) -> int:
    """Serves until the keeper says otherwise, or is gone."""
    # Terminals and service managers signal the whole group: the keeper decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()
    descriptor, listening = map(int, arguments)
    control: Control[ToApi] = Control(socket.socket(fileno=descriptor), ToApi)
    start = control.receive()
    assert isinstance(start, StartApi), "the keeper says so first"
    try:
        settings, _ = parse_arguments(start.words)
        with log_output("debug" if settings.verbose else settings.log_level):
            return _serve(settings, start, control, socket.socket(fileno=listening))
    except JackfieldError as error:
        control.send(ApiFailed(Failure.of(error)))
        return 2 if isinstance(error, ConfigError) else 1


def _serve(
    settings: Settings, start: StartApi, control: Control[ToApi], listener: socket.socket
) -> int:
    registry = Registry.for_settings(settings)
    # Imported only where there are some: a start must not pay for them.
    from jackfield.hooks import Hooks

    hooks = Hooks.installed(registry) if registry.list(HOOKS) else Hooks((), registry)
    plan = make_plan(settings, registry, hooks, check_weights=False)
    return serve(settings, plan, registry, hooks, start, control, listener)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
