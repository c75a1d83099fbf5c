"""What one choice said, as the items that newer formats answer with: thinking, text, calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from jackfield.contracts.generation import ChoiceDelta, Finish
from jackfield.contracts.messages import TokenLogprobs
from jackfield.contracts.text import (
    Content,
    Event,
    Reasoning,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from jackfield.server.errors import check_finish

Kind = Literal["thinking", "text", "call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """Which of a choice's events a request is to see."""

    parse: bool
    """The output comes as events."""
    hide_reasoning: bool = False
    single_call: bool = False
    """``parallel_tool_calls`` is false: only the first call counts."""

    def events(self, delta: ChoiceDelta) -> Iterable[Event]:
        """The delta's events that this request is to see."""
        if not self.parse:
            return (Content(delta.text),) if delta.text else ()
        if not (self.hide_reasoning or self.single_call):
            return delta.events
        return [event for event in delta.events if self._shown(event)]

    def _shown(self, event: Event) -> bool:
        if isinstance(event, Reasoning):
            return not self.hide_reasoning
        return isinstance(event, Content) or not (self.single_call and event.index > 0)


@dataclass(slots=True)
class Item:
    """A stretch of output of one kind; ``pieces`` are its text, of a call the arguments."""

    index: int
    kind: Kind
    name: str = ""
    """The function of a call."""
    call_id: str = ""
    """What the model itself calls it; empty where it does not."""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    is_whole: bool = True
    """False: the output broke off inside it."""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to an item; ``text`` and ``logprobs`` are what it grew by."""

    kind: Literal["opened", "grew", "closed"]
    item: Item
    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()


class OutputItems:
    """Sorts the events of a choice into items, one open at a time.

    Whitespace alone is no item: models put newlines between their thinking, text and calls. It
    is kept where text follows, or where nothing else came. The log-probabilities of text are
    those of the tokens that came with it, held-back ones included.
    """

    def __init__(self, view: EventView) -> None:
        self.items: list[Item] = []
        self.finish: Finish | None = None
        self.num_output_tokens = 0
        self.num_reasoning_tokens = 0
        self.num_cached_tokens = 0
        self._view = view
        self._open: Item | None = None
        self._blank = ""
        self._held: list[TokenLogprobs] = []

    def feed(self, delta: ChoiceDelta) -> list[Change]:
        """The changes that a delta makes; raises what a failed choice means for its request."""
        self.num_output_tokens += len(delta.token_ids)
        self.num_reasoning_tokens += delta.num_reasoning_tokens
        # Said with the first delta, and perhaps again.
        self.num_cached_tokens = max(self.num_cached_tokens, delta.num_cached_tokens)
        self._held += delta.logprobs
        changes: list[Change] = []
        for event in self._view.events(delta):
            self._take(event, changes)
        if delta.finish is not None:
            check_finish(delta.finish)
            self._end(delta.finish, changes)
        return changes

    @property
    def called(self) -> bool:
        """Whether there is a call among the items."""
        return any(item.kind == "call" for item in self.items)

    def _take(self, event: Event, changes: list[Change]) -> None:
        if isinstance(event, Content):
            self._add_text(event.text, changes)
        elif isinstance(event, Reasoning):
            self._held.clear()
            self._grow(self._opened("thinking", "", changes), event.text, changes)
        elif isinstance(event, ToolCallStart):
            self._held.clear()
            self._close(changes)
            self._opened("call", event.name, changes).call_id = event.id
        elif isinstance(event, ToolCallArguments):
            assert self._open is not None and self._open.kind == "call", "calls come one by one"
            self._grow(self._open, event.fragment, changes)
        elif isinstance(event, ToolCallEnd):
            self._close(changes)

    def _add_text(self, text: str, changes: list[Change]) -> None:
        is_open = self._open is not None and self._open.kind == "text"
        if not is_open:
            self._blank += text
            if not text or text.isspace():
                return
            text, self._blank = self._blank, ""
        self._grow(self._opened("text", "", changes), text, changes)

    def _opened(self, kind: Kind, name: str, changes: list[Change]) -> Item:
        """The open item if it is of the kind, else a new one behind it."""
        if self._open is not None and self._open.kind == kind:
            return self._open
        self._close(changes)
        self._blank = ""
        item = self._open = Item(len(self.items), kind, name)
        self.items.append(item)
        changes.append(Change("opened", item))
        return item

    def _grow(self, item: Item, text: str, changes: list[Change]) -> None:
        item.pieces.append(text)
        logprobs: tuple[TokenLogprobs, ...] = ()
        if item.kind == "text" and self._held:
            logprobs = tuple(self._held)
            item.logprobs += logprobs
            self._held.clear()
        changes.append(Change("grew", item, text, logprobs))

    def _close(self, changes: list[Change]) -> None:
        if self._open is not None:
            changes.append(Change("closed", self._open))
            self._open = None

    def _end(self, finish: Finish, changes: list[Change]) -> None:
        self.finish = finish
        if not self.items:
            text, self._blank = self._blank, ""
            self._grow(self._opened("text", "", changes), text, changes)
        if finish.reason == "length":
            self.items[-1].is_whole = False
        self._close(changes)
