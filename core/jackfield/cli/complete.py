"""``jackfield complete``: a running server goes on with a text."""

from __future__ import annotations

import sys
from contextlib import closing

from jackfield.cli.api_client import ApiClient
from jackfield.cli.terminal import Screen, client_parser, connect, lines_from_user, sampling
from jackfield.errors import ApiError


def main(argv: list[str]) -> int:
    """Completes each line of the input, or the ``--quick`` one. The exit status."""
    parser = client_parser("complete", "Texts that a running server goes on with.")
    parser.add_argument("-q", "--quick", metavar="PROMPT", help="complete this and end")
    args = parser.parse_args(argv)
    client, model = connect(args)
    request = {"model": model, **sampling(args), "stream": True}
    if args.quick is not None:
        complete(client, request, args.quick)
        return 0
    for prompt in lines_from_user("> "):
        try:
            complete(client, request, prompt)
        except ApiError as error:
            print(f"jackfield: error: {error}", file=sys.stderr)
    return 0


def complete(client: ApiClient, request: dict[str, object], prompt: str) -> None:
    """Shows what follows the prompt as it comes; Ctrl-C ends it."""
    screen = Screen()
    with closing(client.stream("/completions", {**request, "prompt": prompt})) as chunks:
        try:
            for chunk in chunks:
                for choice in chunk.get("choices", ()):
                    screen.write(choice.get("text", ""))
        except KeyboardInterrupt:
            pass
        finally:
            screen.end()
