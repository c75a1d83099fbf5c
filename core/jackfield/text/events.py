"""Merging the events of a choice."""

from __future__ import annotations

from collections.abc import Iterable

from jackfield.contracts.text import Content, Event, Reasoning, ToolCallArguments


def merge_events(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbours of one kind (and one call) joined, and empty ones left
    out: two streams say the same if they merge to the same list."""
    merged: list[Event] = []
    texts: list[str] = []

    def close() -> None:
        if len(texts) > 1:
            last = merged[-1]
            if isinstance(last, ToolCallArguments):
                merged[-1] = ToolCallArguments(last.index, "".join(texts))
            elif isinstance(last, Content | Reasoning):
                merged[-1] = type(last)("".join(texts))
        texts.clear()

    for event in events:
        text = _text(event)
        if text == "":
            continue
        if text is None or not merged or not _continues(merged[-1], event):
            close()
            merged.append(event)
        if text is not None:
            texts.append(text)
    close()
    return merged


def _text(event: Event) -> str | None:
    if isinstance(event, Content | Reasoning):
        return event.text
    return event.fragment if isinstance(event, ToolCallArguments) else None


def _continues(last: Event, event: Event) -> bool:
    if type(last) is not type(event):
        return False
    if isinstance(last, ToolCallArguments) and isinstance(event, ToolCallArguments):
        return last.index == event.index
    return isinstance(last, Content | Reasoning)
