"""Which command is meant, and what an error looks like: one line, and an exit status."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from jackfield import __version__
from jackfield.config.suggestion import did_you_mean
from jackfield.errors import ConfigError, JackfieldError

Command = Callable[[list[str]], int]

COMMANDS = {
    "serve": ("jackfield.cli.serve", "an OpenAI-compatible server for a model"),
    "chat": ("jackfield.cli.chat", "a conversation with a running server, in the terminal"),
    "complete": ("jackfield.cli.complete", "texts that a running server goes on with"),
    "run-batch": ("jackfield.cli.run_batch", "answers the requests of a file in OpenAI's format"),
    "quantize": ("jackfield.cli.quantize", "a copy of a checkpoint with weights of fewer bits"),
    "bench": ("jackfield.cli.bench", "measures latency, throughput, and a running server"),
    "plugins": ("jackfield.cli.plugins", "what is installed: `jackfield plugins list`"),
}
"""Name to module (its ``main`` takes the words behind the name) and help."""

CONFIG_ERROR = 2
FAILURE = 1
INTERRUPTED = 130
READER_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0; 1 where something failed while running;
    2 where what the user asked for cannot work."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_standard_streams()
    try:
        status = _run(words)
        print(end="", flush=True)
        return status
    except JackfieldError as error:
        if _is_verbose(words):
            traceback.print_exc()
        print(f"jackfield: error: {error}", file=sys.stderr)
        return CONFIG_ERROR if isinstance(error, ConfigError) else FAILURE
    except BrokenPipeError:
        # `jackfield plugins list | head`: the reader has enough, and Python would flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except OSError as error:
        if error.filename is None or _is_verbose(words):
            raise
        print(f"jackfield: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED


def _open_standard_streams() -> None:
    """The null device in the place of each standard stream that was closed: a socket that got its
    number would be sent the log, and libuv ends a process that has one."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def _run(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name in ("-V", "--version", "version"):
        print(f"jackfield {__version__}")
        return 0
    return _command(name)(words[1:])


def _command(name: str) -> Command:
    if name in COMMANDS:
        found: Command = importlib.import_module(COMMANDS[name][0]).main
        return found
    # Imported for a name that is none of ours only: installed hooks may be slow to import.
    from jackfield.hooks import Hooks
    from jackfield.registry import Registry

    commands = Hooks.installed(Registry()).commands
    if name not in commands:
        known = [*COMMANDS, *commands]
        raise ConfigError(
            f"unknown command {name!r}{did_you_mean(name, known)} (there are {', '.join(known)})"
        )
    return commands[name]


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: jackfield COMMAND ...",
            "",
            "An LLM serving engine made of a small kernel and plugins.",
            "",
            "commands:",
            *lines,
            "",
            "`jackfield COMMAND --help` tells a command's options; --version the version.",
        ]
    )


def _is_verbose(words: list[str]) -> bool:
    return "-v" in words or "--verbose" in words
