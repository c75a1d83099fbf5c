"""A parser plugin in the server: its class, and one guarded parser for each choice.

A parser that raises, ends the program or returns something else than events fails its own request,
and the log names the plugin and its distribution. One that never returns cannot be stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from jackfield.contracts.text import (
    CheckpointText,
    Content,
    ParserContext,
    Reasoning,
    Tokenizer,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from jackfield.errors import RAISED, BrokenPluginError
from jackfield.llm.parser_counts import ParserCounts, ReasoningWatch, ToolCallWatch, Watch
from jackfield.registry import Registry

P = TypeVar("P")

REASONING_EVENTS = frozenset({Content, Reasoning})
TOOL_EVENTS = frozenset({Content, ToolCallStart, ToolCallArguments, ToolCallEnd})


class GuardedParser:
    """A parser whose every failure is a ``BrokenPluginError`` that says whose it is."""

    def __init__(
        self,
        who: str,
        parser: Any,
        events: frozenset[type[Any]],
        watch: Watch,
        counts: ParserCounts,
    ) -> None:
        self._who = who
        self._parser = parser
        self._events = events
        self._watch = watch
        self._counts = counts

    def feed(self, text: str) -> list[Any]:
        """The parser's events."""
        events = self._guarded(self._parser.feed, text)
        self._watch.see(events, at_end=False)
        return events

    def finish(self) -> list[Any]:
        """The parser's last events."""
        events = self._guarded(self._parser.finish)
        self._watch.see(events, at_end=True)
        return events

    def _guarded(self, function: Callable[..., object], *arguments: str) -> list[Any]:
        try:
            return self._checked(function, *arguments)
        except BrokenPluginError:
            self._counts.outcomes["failed"] += 1
            raise

    def _checked(self, function: Callable[..., object], *arguments: str) -> list[Any]:
        try:
            events = function(*arguments)
        except RAISED as error:
            raise _broken(self._who, f"raised {type(error).__name__}: {error}") from error
        if not isinstance(events, list | tuple):
            raise _broken(self._who, f"returned {events!r:.60} and no list")
        for event in events:
            if type(event) not in self._events:
                raise _broken(self._who, f"returned the event {event!r:.60}")
        return list(events)


class ParserPlugin(Generic[P]):
    """The chosen plugin of a kind. ``found`` is its class; ``new`` makes one parser."""

    def __init__(self, registry: Registry, kind: str, name: str) -> None:
        self.found: type[P] = registry.load(kind, name)
        self._make = registry.factory(kind, name)
        self._who = registry.describe(kind, name)
        self._events = REASONING_EVENTS if kind == "reasoning_parsers" else TOOL_EVENTS
        self.counts = ParserCounts(kind, name)
        self._markers: frozenset[str] = frozenset()

    def marker_ids(self, tokenizer: Tokenizer | None, checkpoint: CheckpointText) -> frozenset[int]:
        """The special tokens that the plugin's format is made of, by its ``markers``. Called once,
        before the first parser is made."""
        markers_of = getattr(self.found, "markers_of", None)
        said = getattr(self.found, "markers", ()) if markers_of is None else markers_of(checkpoint)
        self._markers = markers = frozenset(said)
        if tokenizer is None or not markers:
            return frozenset()
        return frozenset(id for id in tokenizer.special_ids if tokenizer.token_text(id) in markers)

    def new(self, context: ParserContext) -> GuardedParser:
        """A parser for one choice; ``BrokenPluginError`` where its constructor fails."""
        try:
            made = self._make(context)
        except RAISED as error:
            raise _broken(self._who, f"raised {type(error).__name__}: {error}") from error
        return GuardedParser(self._who, made, self._events, self._watch(context), self.counts)

    def _watch(self, context: ParserContext) -> Watch:
        if self._events is REASONING_EVENTS:
            return ReasoningWatch(self.counts)
        return ToolCallWatch(self.counts, context.tools, self._markers)


def _broken(who: str, what: str) -> BrokenPluginError:
    return BrokenPluginError(f"{who} {what}")
