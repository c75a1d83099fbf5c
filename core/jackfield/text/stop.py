"""Finding stop strings in a stream of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache


class StopStrings:
    """Passes text on until a stop string is complete.

    The match that ends first wins; of those that end together, the longest. What may still
    become a stop string is held back, and nothing else; with ``include_in_output`` nothing is,
    since the match would be passed on anyway. Cost per character does not depend on the number
    or length of the stop strings (Aho and Corasick, 1975).
    """

    def __init__(self, stops: Sequence[str], include_in_output: bool = False) -> None:
        self._nodes, self._starts = _automaton(tuple(stops))
        self._include = include_in_output
        self._state = 0
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """The text that can be passed on, and the stop string if one is complete now. Nothing
        may be fed after a match."""
        nodes, state = self._nodes, self._state
        if not state and not self._starts.search(text):
            return text, None
        for index, character in enumerate(text):
            node = nodes[state]
            while character not in node.next and state:
                state = node.fallback
                node = nodes[state]
            state = node.next.get(character, 0)
            match = nodes[state].match
            if match is not None:
                whole = self._held + text[: index + 1]
                self._state, self._held = 0, ""
                return (whole if self._include else whole[: -len(match)]), match
        self._state = state
        if self._include:
            return text, None
        whole = self._held + text
        free = len(whole) - nodes[state].depth
        self._held = whole[free:]
        return whole[:free], None

    def finish(self) -> str:
        """What was held back, at the end of the text."""
        held, self._held, self._state = self._held, "", 0
        return held


@dataclass(slots=True)
class _Node:
    """``depth`` characters of some stop string are matched; ``match`` is the longest stop
    string that ends here; ``fallback`` the node of the longest proper suffix."""

    depth: int
    next: dict[str, int] = field(default_factory=dict)
    fallback: int = 0
    match: str | None = None


@lru_cache(maxsize=64)
def _automaton(stops: tuple[str, ...]) -> tuple[list[_Node], re.Pattern[str]]:
    """The automaton of these stop strings, read only once made, and a pattern that finds any
    character that one begins with."""
    nodes = [_Node(0)]
    for stop in stops:
        state = 0
        for character in stop:
            if character not in nodes[state].next:
                nodes[state].next[character] = len(nodes)
                nodes.append(_Node(nodes[state].depth + 1))
            state = nodes[state].next[character]
        nodes[state].match = stop
    level = list(nodes[0].next.values())
    while level:
        for state in level:
            _link(nodes, state)
        level = [child for state in level for child in nodes[state].next.values()]
    starts = "".join(re.escape(character) for character in nodes[0].next)
    return nodes, re.compile(f"[{starts}]" if starts else "(?!)")


def _link(nodes: list[_Node], state: int) -> None:
    """Sets the fallbacks of a node's children; its own is known."""
    own = nodes[nodes[state].fallback].match
    nodes[state].match = nodes[state].match or own
    for character, child in nodes[state].next.items():
        fallback = nodes[state].fallback
        while character not in nodes[fallback].next and fallback:
            fallback = nodes[fallback].fallback
        nodes[child].fallback = nodes[fallback].next.get(character, 0)
