"""How long a text a grammar may force by what it repeats."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod

from jackfield.contracts.grammar import GrammarSpec

MAX_FORCED = 20_000
"""Characters of repeated text that a library may find in one step: some milliseconds."""
_COUNTS = re.compile(r"\{(\d+)")
_VERY_MANY = 10**9
_FEWEST = ("minItems", "minLength", "minProperties", "minContains")


def may_force_much(spec: GrammarSpec) -> bool:
    """Whether counts such as ``(a{1000}){1000}`` may multiply to more than ``MAX_FORCED``. All are
    taken for nested, but for those of patterns that stand beside each other."""
    if spec.kind == "choice":
        return False
    if spec.kind in ("regex", "grammar"):
        return _repeats(spec.text) > MAX_FORCED
    document = json.loads(spec.text)
    texts = max(map(_repeats, _strings(document)), default=1)
    return texts * prod(max(1, count) for count in _fewest(document)) > MAX_FORCED


def _repeats(text: str) -> int:
    # A number of thousands of digits is no int for Python, and large enough.
    counts = (int(digits[:9]) for digits in _COUNTS.findall(text))
    return prod(max(1, count) for count in counts)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _fewest(value: object) -> Iterator[int]:
    if isinstance(value, dict):
        for name in _FEWEST:
            if isinstance(count := value.get(name), int | float):
                yield int(min(count, _VERY_MANY))
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _fewest(each)
