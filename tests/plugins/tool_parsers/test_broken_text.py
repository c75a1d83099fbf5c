"""Text that is nearly a call: nothing raises, is lost, or depends on how it was split."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pytest

from jackfield.contracts.text import Event, ParserContext
from jackfield.testing.tool_parsers import assert_well_formed, calls_of, content_of, schema_of
from jackfield.text.events import merge_events
from jackfield_tool_parsers import formats

FORMATS = formats.all_formats()
ODD = (*"{}[]()\"',:=\\", "\n", " ", "\\u", "d83d", "1e5", "-", "null", "f", "\N{GRINNING FACE}")
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema_of({"city": "a", "n": 1})}}
    for name in ("get_weather", "get_time", "f")
]


def parse(name: str, pieces: Sequence[str]) -> list[Event]:
    parser = getattr(formats, name)(ParserContext(tools=TOOLS))
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merge_events([*events, *parser.finish()])


def damaged(rng: random.Random, example: str) -> str:
    """The example with a few places changed, or its pieces and others in any order."""
    pieces = [*re.findall(r"<[^<>]*>|\[[A-Z_]+\]|\w+|[^\w\s]|\s+", example), *ODD]
    if rng.random() < 0.5:
        return "".join(rng.choices(pieces, k=rng.randint(1, 25)))
    for _ in range(rng.randint(1, 4)):
        begin = rng.randrange(len(example) + 1)
        end = min(len(example), begin + rng.choice((0, 1, 3, 10)))
        example = example[:begin] + rng.choice(("", rng.choice(pieces))) + example[end:]
    return example


@pytest.mark.parametrize("name", FORMATS)
def test_any_split_gives_the_same_well_formed_events(name: str) -> None:
    rng = random.Random(name)
    for _ in range(150):
        text = damaged(rng, FORMATS[name].example)
        events = parse(name, [text])
        assert_well_formed(events)
        assert parse(name, list(text)) == events, text
        cut = rng.randrange(len(text) + 1)
        assert parse(name, [text[:cut], text[cut:]]) == events, text
        # Harmony's headers are left out of what is no call.
        if not calls_of(events) and name != "openai":
            assert content_of(events) == text
