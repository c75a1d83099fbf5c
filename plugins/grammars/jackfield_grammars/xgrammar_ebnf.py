"""A schema as EBNF, with what xgrammar's own conversion gets wrong put right.

Version 0.2.8 lets raw control characters (and halves of surrogate pairs, which no text
has) into strings with minLength or maxLength, and matches a
``pattern`` wrongly (``a(bc*)?`` takes "ac"). Its regex converter is right, so that patterns come
from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\w+')
_LOOSE = '([^\\"\\\\\\r\\n])'
_TIGHT = '([^\\"\\\\\\0-\\x1f\\ud800-\\udfff]) | ("\\\\" [\\"\\\\/bfnrt])'


def schema_ebnf(
    library: Any,
    schema: Mapping[str, Any],
    patterns: Sequence[str],
    placeholder: str,
    options: Mapping[str, object],
) -> str:
    """The grammar of a schema in which the constant ``placeholder`` and a number stands for the
    pattern of that number, a regex of JSON texts."""
    text = str(library.Grammar.from_json_schema(json.dumps(schema), **options))
    text = text.replace(_LOOSE, _TIGHT)
    for index, pattern in enumerate(patterns):
        name = f"pattern_{index}"
        text = text.replace(f'"\\"{placeholder}{index}\\""', name)
        text += _renamed(str(library.Grammar.from_regex(pattern)), name)
    return text


def _renamed(grammar: str, name: str) -> str:
    """A grammar whose rules are called ``name`` and not ``root``."""

    def rename(match: re.Match[str]) -> str:
        token = match[0]
        return name + token.removeprefix("root") if token.startswith("root") else token

    return _TOKEN.sub(rename, grammar)
