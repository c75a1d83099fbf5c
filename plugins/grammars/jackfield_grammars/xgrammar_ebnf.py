"""A schema as EBNF, with what xgrammar's own conversion gets wrong put right.

Version 0.2.8 matches a ``pattern`` wrongly (``a(bc*)?`` takes "ac"); its regex converter is right,
so that patterns come from there. Strings with minLength or maxLength it writes as a counted
repetition of single characters, raw control characters among them; with escapes in it a mask takes
0.1 to 1 s where the vocabulary is large. Here each number of characters that are left is a rule,
which takes 0.05 ms a mask, and the time for one more rule to compile. Long strings are a repetition
without escapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LENGTH_RULES = 40
"""Each takes some 30 ms to compile."""
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\w+')
_CHARACTERS = ('[^\\"\\\\\\0-\\x1f\\ud800-\\udfff]', '"\\\\" [\\"\\\\/bfnrt]')


@dataclass(frozen=True, slots=True)
class Length:
    """How many characters a string has; ``most`` None: any number."""

    least: int
    most: int | None

    @property
    def is_long(self) -> bool:
        """Whether it would take too many rules."""
        return (self.least if self.most is None else self.most) > MAX_LENGTH_RULES

    @property
    def name(self) -> str:
        """The rule for the rest of such a string, its closing quote included."""
        return f"length_{self.least}_{'any' if self.most is None else self.most}"

    def rules(self) -> Iterator[tuple[str, str]]:
        """Names and rules, of this one and all that it needs."""
        if self.is_long:
            count = f"{self.least},{'' if self.most is None else self.most}"
            yield self.name, f'{_CHARACTERS[0]}{{{count}}} "\\""'
            return
        length, is_new = self, True
        while is_new:
            end = [] if length.least else [r'"\""']
            least, most = max(0, length.least - 1), length.most
            following = Length(least, None if most is None else most - 1)
            more = [] if most == 0 else [f"{each} {following.name}" for each in _CHARACTERS]
            yield length.name, " | ".join([*end, *more])
            is_new = most != 0 and following != length
            length = following


def schema_ebnf(
    library: Any,
    schema: Mapping[str, Any],
    strings: Sequence[str | Length],
    placeholder: str,
    options: Mapping[str, object],
) -> str:
    """The grammar of a schema in which the constant ``placeholder`` and a number stands for the
    string of that number: a regex of JSON texts, or a length."""
    text = str(library.Grammar.from_json_schema(json.dumps(schema), **options))
    lengths: dict[str, str] = {}
    for index, string in enumerate(strings):
        name = f"string_{index}"
        text = text.replace(f'"\\"{placeholder}{index}\\""', name)
        if isinstance(string, Length):
            lengths |= string.rules()
            text += f'{name} ::= "\\"" {string.name}\n'
        else:
            text += _renamed(str(library.Grammar.from_regex(string)), name)
    return text + "".join(f"{name} ::= {rule}\n" for name, rule in lengths.items())


def _renamed(grammar: str, name: str) -> str:
    """A grammar whose rules are called ``name`` and not ``root``."""

    def rename(match: re.Match[str]) -> str:
        token = match[0]
        return name + token.removeprefix("root") if token.startswith("root") else token

    return _TOKEN.sub(rename, grammar)
