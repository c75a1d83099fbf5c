"""How long a text a grammar may force by what it repeats."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod

from jackfield.contracts.grammar import GrammarSpec

MAX_FORCED = 20_000
"""Characters of repeated text that a library may find in one step: some milliseconds."""
_VERY_MANY = 10**9
_COUNTS = re.compile(r"\{(\d+)")
_PIECES = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{(\d+)[\d,]*\}|.", re.S)
_FEWEST = ("minItems", "minLength", "minProperties", "minContains")


def may_force_much(spec: GrammarSpec) -> bool:
    """Whether counts such as ``(a{1000}){1000}`` may come to more than ``MAX_FORCED`` characters.
    Those of a schema's arrays, and of a grammar's rules, are taken for nested."""
    if spec.kind == "choice":
        return False
    if spec.kind == "grammar":
        counts = _COUNTS.findall(spec.text)
        return prod(max(1, _number(count)) for count in counts) > MAX_FORCED
    if spec.kind == "regex":
        return repeated_length(spec.text) > MAX_FORCED
    document = json.loads(spec.text)
    longest = max(map(repeated_length, _strings(document)), default=1)
    return longest * prod(max(1, count) for count in _fewest(document)) > MAX_FORCED


def patterns_multiply(spec: GrammarSpec) -> bool:
    """Whether a regex, or a pattern of a schema, comes to more than ``MAX_FORCED`` characters."""
    if spec.kind in ("choice", "grammar"):
        return False
    texts = [spec.text] if spec.kind == "regex" else _strings(json.loads(spec.text))
    return any(repeated_length(text) > MAX_FORCED for text in texts)


def repeated_length(pattern: str) -> int:
    """No fewer than the shortest match of a regex has characters; 1 if it repeats nothing."""
    if not _COUNTS.search(pattern):
        return 1
    outer: list[int] = []
    total = last = 0
    for piece in _PIECES.finditer(pattern):
        if piece[0] == "(":
            outer.append(total)
            total = last = 0
        elif piece[0] == ")":
            last = total
            total += outer.pop() if outer else 0
        elif piece[1] is not None:
            more = last * (max(1, _number(piece[1])) - 1)
            total, last = total + more, last + more
        else:
            total, last = total + 1, 1
    return total + sum(outer)


def _number(digits: str) -> int:
    # One of thousands of digits is no int for Python, and very many.
    return int(digits[:9]) if len(digits) <= 9 else _VERY_MANY


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
