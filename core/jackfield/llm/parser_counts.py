"""What became of the calls and the thinking that parsers saw: counts for ``/metrics``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jackfield.contracts.text import (
    Content,
    Event,
    Reasoning,
    ToolCallEnd,
    ToolCallStart,
)

OUTCOMES: Mapping[str, tuple[str, ...]] = {
    "reasoning_parsers": ("complete", "cut", "failed"),
    "tool_parsers": ("complete", "cut", "unknown_tool", "malformed", "failed"),
}
"""By kind. ``complete``: a call, or the thinking of a choice, that ended by itself; ``cut``: the
output ended inside it; ``unknown_tool``: a call of what the request does not offer, whatever else
it was; ``malformed``: markers of the format around what is no call; ``failed``: the parser broke
its contract, and the request failed."""


@dataclass(frozen=True, slots=True)
class ParserCounts:
    """One parser's outcomes since the start; written and read in the event loop."""

    kind: str
    name: str
    outcomes: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcomes", Counter(dict.fromkeys(OUTCOMES[self.kind], 0)))


class Watch(Protocol):
    """Sees the events of one choice's parser, in their order."""

    def see(self, events: Sequence[Event], *, at_end: bool) -> None:
        """``at_end``: they are the last, said when the output was over."""
        ...


class ReasoningWatch:
    """The thinking of one choice."""

    __slots__ = ("_last", "_outcomes", "_thought")

    def __init__(self, counts: ParserCounts) -> None:
        self._outcomes = counts.outcomes
        self._thought = False
        self._last: type[Event] = Content

    def see(self, events: Sequence[Event], *, at_end: bool) -> None:
        """As ``Watch`` has it. O(events)."""
        for event in events:
            self._last = type(event)
            self._thought = self._thought or self._last is Reasoning
        if at_end and self._thought:
            self._outcomes["cut" if self._last is Reasoning else "complete"] += 1


class ToolCallWatch:
    """The calls of one choice. What follows a marker without a call is counted once, up to the
    next call: the markers of one broken call may come out in several pieces."""

    __slots__ = ("_is_bad", "_is_unknown", "_markers", "_names", "_outcomes")

    def __init__(
        self, counts: ParserCounts, tools: Iterable[Mapping[str, object]], markers: Collection[str]
    ) -> None:
        self._outcomes = counts.outcomes
        self._names = frozenset(_name(tool) for tool in tools)
        self._markers = markers
        self._is_bad = self._is_unknown = False

    def see(self, events: Sequence[Event], *, at_end: bool) -> None:
        """As ``Watch`` has it. O(events x markers)."""
        for event in events:
            if isinstance(event, Content):
                if not self._is_bad and any(marker in event.text for marker in self._markers):
                    self._is_bad = True
                    self._outcomes["malformed"] += 1
            elif isinstance(event, ToolCallStart):
                self._is_bad = False
                self._is_unknown = event.name not in self._names
            elif isinstance(event, ToolCallEnd):
                whole = "cut" if at_end else "complete"
                self._outcomes["unknown_tool" if self._is_unknown else whole] += 1


def _name(tool: Mapping[str, object]) -> object:
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else None
