"""Grammars of plain texts: choices as EBNF and as Lark, and which of the two a text is."""

from __future__ import annotations

import json

from jackfield.contracts.grammar import GrammarSpec
from jackfield.errors import RequestError

PARAM = "structured_outputs"


def choices(spec: GrammarSpec) -> list[str]:
    """The texts of a ``choice``."""
    listed: list[str] = json.loads(spec.text)
    return listed


def is_ebnf(text: str) -> bool:
    """EBNF in the manner of GBNF writes ``name ::= ...``; Lark writes ``name: ...``."""
    return "::=" in text


def refuse(what: str) -> RequestError:
    """The error for what a backend cannot do."""
    return RequestError(f"structured_outputs: {what}", PARAM)
