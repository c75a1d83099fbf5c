"""What `jackfield chat` and `jackfield complete` share: options, prompts, text as it comes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator

from jackfield.cli.api_client import ApiClient
from jackfield.config.environment import client_api_key
from jackfield.config.line_parser import LineParser
from jackfield.errors import ApiError

DEFAULT_URL = "http://localhost:8000/v1"

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def client_parser(command: str, description: str) -> argparse.ArgumentParser:
    """The options of both clients."""
    parser = LineParser(prog=f"jackfield {command}", description=description)
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the API's address; {DEFAULT_URL}")
    parser.add_argument("--model-name", help="the model to ask; default: the server's first one")
    parser.add_argument(
        "--api-key", help="the key to send; default: JACKFIELD_API_KEY or OPENAI_API_KEY"
    )
    parser.add_argument("--max-tokens", type=int, help="the most tokens of an answer")
    parser.add_argument("--temperature", type=float, help="default: as the model's author says")
    return parser


def connect(args: argparse.Namespace) -> tuple[ApiClient, str]:
    """A client, and the model that it is to ask."""
    client = ApiClient(args.url, args.api_key or client_api_key())
    if args.model_name is not None:
        return client, args.model_name
    names = client.models()
    if not names:
        raise ApiError(f"the server at {args.url} serves no model")
    return client, names[0]


def sampling(args: argparse.Namespace) -> dict[str, object]:
    """The fields of a request that options gave."""
    given = {"max_tokens": args.max_tokens, "temperature": args.temperature}
    return {name: value for name, value in given.items() if value is not None}


def lines_from_user(prompt: str) -> Iterator[str]:
    """What the user types, line by line, to the end of the input. Ctrl-C drops a line. The prompt
    is shown on a terminal only."""
    interactive = sys.stdin.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (gives input() its line editing; not on every platform)
    while True:
        try:
            line = input(prompt if interactive else "")
        except EOFError:
            if interactive:
                print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if line.strip():
            yield line


class Screen:
    """Writes text to standard output as it comes; ``dim`` on a terminal only."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty()
        self._dim = False
        self._has_text = False

    def write(self, text: str, *, dim: bool = False) -> None:
        """Shows the text at once."""
        if dim != self._dim:
            self._switch(dim)
        self._has_text = True
        sys.stdout.write(text)
        sys.stdout.flush()

    def end(self) -> None:
        """Ends the answer, if there was one: plain letters, a new line."""
        if self._dim:
            self._switch(False)
        if self._has_text:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _switch(self, dim: bool) -> None:
        self._dim = dim
        if self._colours:
            sys.stdout.write(_DIM if dim else _PLAIN)
        elif not dim:
            # Without colours a line sets the answer apart from the thinking.
            sys.stdout.write("\n")
