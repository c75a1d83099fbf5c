"""Structural tags, written so that xgrammar means what they mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jackfield_grammars.schema_dialect import settled
from jackfield_grammars.texts import refuse
from jackfield_grammars.xgrammar_schema import Rewritten, rewritten
from jackfield_grammars.xgrammar_texts import rewritten_regex


def exposed_specials(tag: object, special: Mapping[str, int]) -> frozenset[int]:
    """Special tokens that the literal texts of a structural tag name: in it they may come."""
    texts = list(_texts(tag))
    return frozenset(
        token_id for name, token_id in special.items() if any(name in text for text in texts)
    )


def _texts(node: object) -> Iterator[str]:
    """Every text of a tag outside its schemas."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key not in ("json_schema", "schema"):
                yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def free_text_triggers(tag: Mapping[str, Any]) -> list[str]:
    """What ends the free text that a structural tag begins with; nothing where it does not begin
    so, or excludes something."""
    form = tag.get("format")
    if not isinstance(form, Mapping) or form.get("type") != "triggered_tags":
        return []
    known = {"type", "triggers", "tags", "at_least_one", "stop_after_first"}
    if form.get("at_least_one") or not known.issuperset(form):
        return []
    return list(form.get("triggers", ()))


MAX_WHITESPACE = 32
"""Characters of space between two tokens of JSON: without a bound some models never stop."""


def rewritten_tag(tag: Any, ebnf: Callable[[Rewritten], str], *, narrows_long: bool) -> Any:
    """A structural tag with its schemas and regexes rewritten. ``ebnf`` is for schemas that
    xgrammar's own conversion gets wrong; ``narrows_long``: see ``rewritten``."""
    if isinstance(tag, list):
        return [rewritten_tag(each, ebnf, narrows_long=narrows_long) for each in tag]
    if not isinstance(tag, Mapping):
        return tag
    result: dict[str, Any] = {}
    for key, value in tag.items():
        if key in ("json_schema", "schema"):
            given = json.loads(value) if isinstance(value, str) else value
            # In other styles strings stand as they are, and only patterns of JSON can be written.
            keeps_formats = tag.get("style", "json") == "json"
            schema = rewritten(
                settled(given), keeps_formats=keeps_formats, narrows_long=narrows_long
            )
            if schema.strings:
                return _as_grammar(tag, schema, ebnf)
            result[key] = schema.schema
        elif key == "pattern" and tag.get("type") == "regex":
            result[key] = rewritten_regex(value)
        else:
            result[key] = rewritten_tag(value, ebnf, narrows_long=narrows_long)
    if tag.get("type") == "json_schema":
        result.setdefault("max_whitespace_cnt", MAX_WHITESPACE)
    return result


def _as_grammar(
    tag: Mapping[str, Any], schema: Rewritten, ebnf: Callable[[Rewritten], str]
) -> dict[str, Any]:
    if tag.get("style", "json") != "json":
        has_patterns = any(isinstance(each, str) for each in schema.strings)
        what = "pattern" if has_patterns else "minLength or maxLength"
        raise refuse(f"{what} in {tag['style']} is beyond xgrammar")
    return {"type": "grammar", "grammar": ebnf(schema)}
