"""Regexes and choices, written so that xgrammar means what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from jackfield.errors import RequestError
from jackfield_grammars.texts import refuse

_PIECE = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|.", re.DOTALL)
"""An escape, a class or a character of a regex."""


def rewritten_regex(pattern: str) -> str:
    """``.`` is no line feed; anchors stand where a whole text has its ends, or nowhere."""
    pieces = _PIECE.findall(pattern)
    return "".join(
        "[^\\n]" if piece == "." else piece
        for piece in _unanchored(pieces, lambda what: refuse(f"{what} is beyond xgrammar"))
    )


def check_pattern(pattern: object, refusal: Callable[[str], RequestError]) -> None:
    """Raises for a ``pattern`` of a schema that xgrammar does not take as it is meant.

    It matches whole strings where the schema asks for a match anywhere, which is narrower.
    """
    if not isinstance(pattern, str):
        raise refusal("a pattern that is no text")
    try:
        re.compile(pattern)
    except re.error as error:
        raise refusal(f"the pattern {pattern[:80]!r} ({error})") from None
    list(_unanchored(_PIECE.findall(pattern), refusal))


def _unanchored(pieces: Sequence[str], refusal: Callable[[str], RequestError]) -> Iterator[str]:
    """The pieces without anchors; xgrammar ignores them, wherever they stand."""
    depth, last = 0, len(pieces) - 1
    for index, piece in enumerate(pieces):
        depth += (piece == "(") - (piece == ")")
        if piece == "^":
            if depth or (index and pieces[index - 1] != "|"):
                raise refusal("'^' inside a regex")
        elif piece == "$":
            if depth or (index < last and pieces[index + 1] != "|"):
                raise refusal("'$' inside a regex")
        elif piece in (r"\b", r"\B", r"\A", r"\Z", r"\z"):
            raise refusal(f"{piece!r} in a regex")
        else:
            yield piece


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
