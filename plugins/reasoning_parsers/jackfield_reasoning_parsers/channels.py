"""The shape of channels: messages of a header, a mark, a body and an end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from jackfield.contracts.text import (
    CheckpointText,
    Content,
    ParserContext,
    Reasoning,
    ReasoningBoundary,
)
from jackfield_reasoning_parsers.markers import markers_of, special_tokens

_MAX_HEADER = 256


@dataclass(frozen=True, slots=True)
class Channels:
    """One family's way of writing messages.

    A header begins with one of ``opens``, goes on to one of ``marks`` and is at most 256
    characters long; a body goes on to one of ``ends``, or to one of ``breaks``, which open the
    next header. The header with its mark decides what the body is: reasoning where the regular
    expression ``thought_header`` is found in it, content where ``answer_header`` is; the message
    of any other header passes as it is, framing and all, to the tool parser. ``prompt_opens``
    begins the part of the prompt that the output continues.

    ``tokens`` are further special tokens that are kept in the text.

    ``start`` and ``end`` are a thought's header and its end as the model writes them,
    ``answer_start`` is the header of an answer, and ``closing`` leads a thought that is broken
    off to its answer.
    """

    opens: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    thought_header: str = ""
    answer_header: str = ""
    prompt_opens: str = ""
    start: str = ""
    end: str = ""
    answer_start: str = ""
    closing: str = ""
    tokens: tuple[str, ...] = ()


class Body(Enum):
    """What a message is."""

    THOUGHT = 0
    ANSWER = 1
    OTHER = 2


class ChannelReasoningParser:
    """A reasoning parser that is a table: subclasses give ``name`` and ``channels``."""

    name: ClassVar[str]
    api_version: ClassVar[int] = 1
    channels: ClassVar[Channels] = Channels()

    def __init__(self, context: ParserContext) -> None:
        self._scanner = ChannelScanner(self.channels, context.prompt_suffix)

    @classmethod
    def markers_of(cls, checkpoint: CheckpointText) -> tuple[str, ...]:
        """Special tokens that messages are made of."""
        form = cls.channels
        parts = (*form.opens, *form.marks, *form.ends, *form.breaks, form.start, form.closing)
        return (*special_tokens(parts), *form.tokens)

    @classmethod
    def boundary(cls, context: ParserContext) -> ReasoningBoundary | None:
        channels = cls.channels
        body = ChannelScanner(channels, context.prompt_suffix).body
        if body is Body.ANSWER:
            return None
        return ReasoningBoundary(
            start=channels.start,
            end=channels.end,
            opened=body is Body.THOUGHT,
            other_ends=tuple(end for end in channels.ends if end != channels.end),
            repeats=True,
            answer=channels.answer_start,
            closing=channels.closing,
        )

    def feed(self, text: str) -> list[Content | Reasoning]:
        return self._scanner.feed(text)

    def finish(self) -> list[Content | Reasoning]:
        return self._scanner.finish()


class ChannelScanner:
    """One pass over the output of a choice; the cost is linear in its length."""

    def __init__(self, channels: Channels, prompt_suffix: str) -> None:
        self._opens = markers_of(channels.opens + channels.ends)
        self._marks = markers_of(channels.marks)
        self._body_ends = markers_of(channels.ends + channels.breaks)
        self._ends = channels.ends
        self._breaks = channels.breaks
        self._thought = re.compile(channels.thought_header)
        self._answer = re.compile(channels.answer_header)
        self.body: Body | None = None
        """What is being written; None between the messages."""
        self._in_header = False
        self._held = ""
        at = prompt_suffix.rfind(channels.prompt_opens) if channels.prompt_opens else -1
        if at >= 0:
            self.feed(prompt_suffix[at:])
            # What the prompt has written of a header is no part of the output.
            self._in_header, self._held = False, ""

    def feed(self, text: str) -> list[Content | Reasoning]:
        """The events that ``text`` completes."""
        events: list[Content | Reasoning] = []
        rest, self._held = self._held + text, ""
        while rest:
            step = self._between if self.body is None else self._in_body
            rest = step(rest, events)
        return events

    def finish(self) -> list[Content | Reasoning]:
        """The rest: held back text that has become no header and no end."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [Reasoning(held) if self.body is Body.THOUGHT else Content(held)]

    def _between(self, text: str, events: list[Content | Reasoning]) -> str:
        """Text up to a header is content; a header is held until its mark is there."""
        if not self._in_header:
            found = self._opens.find(text)
            begin = len(text) - self._opens.held(text) if found is None else found[0]
            _add(events, Body.ANSWER, text[:begin])
            if found is None:
                self._held = text[begin:]
                return ""
            if found[2] in self._ends:
                return text[found[1] :]
            self._in_header = True
            return text[begin:]
        found = self._marks.find(text[:_MAX_HEADER])
        if found is None and len(text) < _MAX_HEADER:
            self._held = text
            return ""
        self._in_header = False
        if found is None:
            _add(events, Body.ANSWER, text[:1])
            return text[1:]
        header = text[: found[1]]
        if self._thought.search(header):
            self.body = Body.THOUGHT
        elif self._answer.search(header):
            self.body = Body.ANSWER
        else:
            self.body = Body.OTHER
            _add(events, Body.OTHER, header)
        return text[found[1] :]

    def _in_body(self, text: str, events: list[Content | Reasoning]) -> str:
        found = self._body_ends.find(text)
        body = self.body
        if found is None:
            keep = self._body_ends.held(text)
            _add(events, body, text[: len(text) - keep])
            self._held = text[len(text) - keep :]
            return ""
        begin, end, marker = found
        _add(events, body, text[:begin])
        self.body = None
        if marker in self._breaks:
            return text[begin:]
        if body is Body.OTHER:
            _add(events, body, marker)
        return text[end:]


def _add(events: list[Content | Reasoning], body: Body | None, text: str) -> None:
    if text:
        events.append(Reasoning(text) if body is Body.THOUGHT else Content(text))
