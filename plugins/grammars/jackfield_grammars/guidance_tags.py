"""Structural tags as Lark, the way llguidance reads it.

Formats are JSON objects (https://xgrammar.mlc.ai/docs/structural_tag); each becomes a rule. Free
text ends where a trigger, or the end of a tag, is written: a lazy terminal ends as soon as it can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jackfield_grammars.texts import refuse

ANY_TEXT = r"/(.|\n)*/"
MAX_PARTS = 5000


class TagGrammar:
    """Writes one structural tag. ``special`` are the ids of special tokens by their texts, which
    the literal texts of a tag may name; ``schema`` writes a schema as llguidance takes it, with
    at most so many characters of space between two tokens of JSON."""

    def __init__(
        self, special: Mapping[str, int], schema: Callable[[Any, int | None], Mapping[str, Any]]
    ) -> None:
        self._special = special
        self._schema = schema
        names = sorted((name for name in special if name), key=len, reverse=True)
        self._names = re.compile("(" + "|".join(map(re.escape, names)) + ")" if names else "(?!)")
        self._rules: list[str] = []
        self._by_type: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "const_string": lambda node: self._text(node["value"]),
            "json_schema": self._json,
            "regex": self._regex,
            "any_text": self._any_text,
            "sequence": lambda node: self._joined(node["elements"], " "),
            "or": lambda node: self._joined(node["elements"], " | "),
            "optional": lambda node: f"({self._rule(node['content'])})?",
            "star": lambda node: f"({self._rule(node['content'])})*",
            "plus": lambda node: f"({self._rule(node['content'])})+",
            "tag": self._tag,
            "triggered_tags": self._triggered,
            "tags_with_separator": self._separated,
        }

    def lark(self, tag: Mapping[str, Any]) -> str:
        """The grammar of ``{"type": "structural_tag", "format": ...}``."""
        try:
            start = self._rule(tag["format"])
        except (KeyError, TypeError, AttributeError) as error:
            raise refuse(f"guidance: the structural tag has no {error}") from error
        return "\n".join(["%llguidance {}", f"start: {start}", *self._rules])

    def _rule(self, node: Mapping[str, Any]) -> str:
        """The name of a new rule for a format."""
        write = self._by_type.get(node["type"])
        if write is None:
            raise refuse(f"a structural tag with {node['type']!r} is beyond guidance")
        return self._named(write(node))

    def _named(self, body: str, attribute: str = "") -> str:
        if len(self._rules) >= MAX_PARTS:
            raise refuse("guidance: the structural tag has too many parts")
        name = f"part_{len(self._rules)}"
        self._rules.append(f"{name}{attribute}: {body}")
        return name

    def _joined(self, elements: Sequence[Mapping[str, Any]], by: str) -> str:
        return by.join(map(self._rule, elements)) or '""'

    def _text(self, text: str) -> str:
        """A literal text; special tokens in it by their ids."""
        pieces = [each for each in self._names.split(text) if each]
        return " ".join(map(self._piece, pieces)) or '""'

    def _piece(self, text: str) -> str:
        token_id = self._special.get(text)
        return json.dumps(text, ensure_ascii=False) if token_id is None else f"<[{token_id}]>"

    def _json(self, node: Mapping[str, Any]) -> str:
        if node.get("style", "json") != "json":
            raise refuse(f"{node['style']} in a structural tag is beyond guidance")
        given = node["json_schema"]
        given = json.loads(given) if isinstance(given, str) else given
        return "%json " + json.dumps(self._schema(given, node.get("max_whitespace_cnt")))

    def _regex(self, node: Mapping[str, Any]) -> str:
        if node.get("excludes"):
            raise refuse("excludes in a structural tag is beyond guidance")
        pattern = str(node["pattern"])
        if pattern in ("", "()"):
            return '""'
        return "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", pattern) + "/"

    def _any_text(self, node: Mapping[str, Any]) -> str:
        if node.get("excludes"):
            raise refuse("excludes in a structural tag is beyond guidance")
        return ANY_TEXT

    def _tag(self, node: Mapping[str, Any]) -> str:
        return f"{self._text(node['begin'])} {self._content(node)}"

    def _content(self, node: Mapping[str, Any]) -> str:
        """The content and the end of a tag."""
        end = node["end"]
        if not isinstance(end, str):
            raise refuse("a tag with several ends is beyond guidance")
        content = node["content"]
        if content["type"] == "any_text" and end:
            self._any_text(content)
            return self._until(end)
        return f"{self._rule(content)} {self._text(end)}"

    def _until(self, end: str) -> str:
        """Text up to the first place where ``end`` is written."""
        first, *rest = [each for each in self._names.split(end) if each]
        if first in self._special:
            return f"{ANY_TEXT} {self._text(end)}"
        lazy = self._named(f"{ANY_TEXT} {self._piece(first)}", "[lazy]")
        return " ".join([lazy, *map(self._piece, rest)])

    def _triggered(self, node: Mapping[str, Any]) -> str:
        if node.get("excludes"):
            raise refuse("excludes in a structural tag is beyond guidance")
        calls = []
        for trigger in node["triggers"]:
            tags = [each for each in node["tags"] if each["begin"].startswith(trigger)]
            if not tags or not trigger:
                raise refuse(f"guidance: no tag begins with the trigger {trigger!r}")
            ways = [
                self._named(f"{self._text(each['begin'][len(trigger) :])} {self._content(each)}")
                for each in tags
            ]
            calls.append(self._named(f"{self._until(trigger)} ({' | '.join(ways)})"))
        call = self._named(" | ".join(calls))
        if node.get("stop_after_first"):
            return call if node.get("at_least_one") else f"{call} | {ANY_TEXT}"
        return f"{call}{'+' if node.get('at_least_one') else '*'} {ANY_TEXT}"

    def _separated(self, node: Mapping[str, Any]) -> str:
        one = self._named(" | ".join(map(self._rule, node["tags"])))
        separator = self._text(node["separator"])
        some = one if node.get("stop_after_first") else f"{one} ({separator} {one})*"
        return some if node.get("at_least_one") else f"({some})?"
