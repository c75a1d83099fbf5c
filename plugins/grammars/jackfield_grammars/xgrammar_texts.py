"""Regexes and choices, written so that xgrammar means what they mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from jackfield_grammars.json_regex import pieces, without_anchors, without_first_caret
from jackfield_grammars.texts import refuse

MAX_OPTIONAL = 100
"""Parts of a regex that may be left out: xgrammar takes a time that grows with their cube, nothing
can stop it, and one of 3,000 would keep a thread for hours."""
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|.)", re.DOTALL)


def rewritten_regex(pattern: str) -> str:
    """``.`` is no line feed, ``\\x41`` two digits long, and a caret in a class no negation; anchors
    stand where a whole text has its ends, or nowhere."""
    parts = pieces(pattern)
    optional = sum(part in ("?", "*") and before != "(" for before, part in pairwise(parts))
    if optional > MAX_OPTIONAL:
        raise refuse(
            f"a regex with {optional} optional parts (at most {MAX_OPTIONAL}) is beyond xgrammar"
        )
    kept = without_anchors(parts, lambda what: refuse(f"{what} is beyond xgrammar"))
    return "".join("[^\\n]" if part == "." else _exact(part) for part in kept)


def _exact(part: str) -> str:
    """A piece whose codes have as many digits as xgrammar reads."""
    part = _ESCAPE.sub(lambda found: rf"\u00{found[1]}" if found[1] else found[0], part)
    return without_first_caret(part) if part[0] == "[" else part


def choice_ebnf(texts: Sequence[str]) -> str:
    """One of the texts, as EBNF."""
    return "root ::= " + " | ".join(map(_literal, texts))


def _literal(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    return character if 0x20 <= code < 0x7F else f"\\U{code:08x}"
