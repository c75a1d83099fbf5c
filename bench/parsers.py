"""What tool parsers cost: a token, and whether ten times the text takes ten times as long.

    python bench/parsers.py [NAME ...] [--megabytes 1]

Text is cut into pieces of four characters, about a token each. "call": a call of a hundred tokens
in the family's format; "text": an answer that calls nothing; "long": one call with an argument of
so many characters. CPU time of one process, the best of several runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from tests.plugins.tool_parsers.renderers import FAMILIES, Render

from jackfield.contracts.text import ParserContext, ToolParser
from jackfield.testing.tool_parsers import Call
from jackfield_tool_parsers import formats

PIECE = 4
WORDS = "Paris is warm today, and the museums are open. "
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string"},
                    "limit": {"type": "integer"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    }
]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME")
    arguments.add_argument("--megabytes", type=float, default=1.0)
    args = arguments.parse_args()
    print(f"{'parser':20} {'call':>9} {'text':>9} {'long':>9} {'0.1 long':>9} {'ratio':>6}")
    print(f"{'':20} {'us/token':>9} {'us/token':>9} {'s':>9} {'s':>9}")
    for name in args.names or FAMILIES:
        report(name, FAMILIES[name].render, round(args.megabytes * 1_000_000))


def report(name: str, render: Render, characters: int) -> None:
    parser = getattr(formats, name)
    query = (WORDS * 8).strip()
    call = render([Call("search", {"query": query, "limit": 3, "tags": ["a", "b"]})])
    typical = per_token(parser, call * 20)
    plain = per_token(parser, WORDS * 200)
    long = seconds(parser, long_call(render, characters), 2)
    short = seconds(parser, long_call(render, characters // 10), 4)
    print(f"{name:20} {typical:9.2f} {plain:9.2f} {long:9.3f} {short:9.4f} {long / short:6.1f}")


def long_call(render: Render, characters: int) -> str:
    text = WORDS.replace("\n", "") * (characters // len(WORDS))
    return render([Call("search", {"query": text})])


def per_token(parser: type[ToolParser], text: str) -> float:
    return seconds(parser, text, 7) * 1e6 / (len(text) / PIECE)


def seconds(parser: type[ToolParser], text: str, rounds: int) -> float:
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    return min(measured(lambda: run(parser, pieces)) for _ in range(rounds))


def run(parser: type[ToolParser], pieces: Sequence[str]) -> None:
    made = parser(ParserContext(tools=TOOLS))
    for piece in pieces:
        made.feed(piece)
    made.finish()


def measured(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
