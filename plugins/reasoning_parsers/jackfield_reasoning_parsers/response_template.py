"""The checkpoint's own word: the reasoning field of its ``response_template``.

Version 1 as transformers 5 reads it: a field has ``open`` and ``close`` literals, or patterns.
Patterns are followed where they are literals with optional whitespace around them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

from jackfield.contracts.text import ParserContext
from jackfield.errors import ConfigError
from jackfield_reasoning_parsers.tag_pair import TagPair, TagPairReasoningParser

_GAP = r"(?:(?:\\s|\\n|\n)[*+?]?)*"
_EDGES = re.compile(f"{_GAP}(.*?){_GAP}", re.DOTALL)
_SPECIAL = re.compile(r"(?<!\\)[][(){}*+?|^$.]|\\\w")


# transformers wants the first one; checkpoints on the hub have the others too.
_NAMES = ("reasoning_content", "reasoning", "thinking")


class HfReasoningParser(TagPairReasoningParser):
    """The thought lies between the literals of the reasoning field, the answer between those of
    ``content`` where it has any; what else there is passes on to the tool parser."""

    name: ClassVar[str] = "hf"

    @classmethod
    def tags_for(cls, context: ParserContext) -> TagPair:
        template = context.checkpoint.response_template
        if template is None:
            raise ConfigError(
                f"--reasoning-parser {cls.name} needs a response_template in the checkpoint's "
                "tokenizer_config.json, and there is none; choose a parser by its name, or auto"
            )
        return tags_of(template)


class ResponseTemplateReasoningParser(HfReasoningParser):
    """The name that SGLang gives it."""

    name: ClassVar[str] = "response_template"


def has_thinking(template: Mapping[str, object] | None) -> bool:
    """Whether a response template says how thoughts are written."""
    return template is not None and bool(_thinking(_fields(template)))


def tags_of(template: Mapping[str, object]) -> TagPair:
    """The tags that a response template states; ``ConfigError`` for what is not followed."""
    fields = _fields(template)
    thinking = _thinking(fields)
    content = fields.get("content", {})
    end = _literals(thinking, "close")
    if not end:
        raise ConfigError("the checkpoint's response_template has no reasoning field that ends")
    return _tag_pair(
        _literals(thinking, "open"), end, _literals(content, "open"), _literals(content, "close")
    )


@lru_cache(maxsize=16)
def _tag_pair(
    start: tuple[str, ...],
    end: tuple[str, ...],
    answer_start: tuple[str, ...],
    answer_end: tuple[str, ...],
) -> TagPair:
    return TagPair(
        start=start,
        end=end,
        implied=not start,
        switches=(),
        answer_start=answer_start,
        answer_end=answer_end,
    )


def _fields(template: Mapping[str, object]) -> Mapping[str, Mapping[str, object]]:
    fields = template.get("fields")
    if not isinstance(fields, Mapping):
        raise ConfigError("the checkpoint's response_template has no fields")
    return fields


def _thinking(fields: Mapping[str, Mapping[str, object]]) -> Mapping[str, object]:
    return next((fields[name] for name in _NAMES if name in fields), {})


def _literals(field: Mapping[str, object], side: str) -> tuple[str, ...]:
    """What opens or closes a field, as literals, the longest first."""
    pattern = field.get(f"{side}_pattern")
    if isinstance(pattern, str):
        return (_literal(pattern),)
    value = field.get(side, ())
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
        raise ConfigError(f"the checkpoint's response_template has a wrong {side!r}: {value!r:.80}")
    stripped = dict.fromkeys(text.strip("\n") for text in texts)
    return tuple(sorted((text for text in stripped if text), key=len, reverse=True))


def _literal(pattern: str) -> str:
    """The literal that a pattern is, but for whitespace around it."""
    edges = _EDGES.fullmatch(pattern)
    assert edges is not None
    if not edges[1] or _SPECIAL.search(edges[1]):
        raise ConfigError(
            f"the checkpoint's response_template has the pattern {pattern!r:.80}, which "
            "--reasoning-parser hf cannot follow; choose a parser by its name"
        )
    return re.sub(r"\\(\W)", r"\1", edges[1])
