"""The shape ``<think> thought </think> answer``: any pair of tags, written or implied."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import ClassVar

from jackfield.contracts.text import (
    CheckpointText,
    Content,
    ParserContext,
    Reasoning,
    ReasoningBoundary,
)
from jackfield_reasoning_parsers.markers import markers_of, special_tokens

_MAX_LEADING_SPACE = 256


@dataclass(frozen=True, slots=True)
class TagPair:
    """One family's way of writing a thought and an answer.

    ``start`` and ``end``: the tags; further ones mean the same, and where there are as many of
    each they are pairs, of which the prompt or the chat template says which one is used.
    ``{suffix}`` in a tag is what the group of ``suffix_pattern`` finds in the chat template.

    Where the prompt ends with a tag, that says where the output begins. Else ``switches``, the
    names of template arguments, say whether the model thinks at all (false and ``off_values``
    say no; ``thinks`` is the template's default), and ``implied`` whether the output begins
    inside the thought without a start tag.

    ``tokens`` are special tokens that a tag is made of, where it does not look like one itself.

    ``interrupts`` end the thought and are part of what follows: a tool call without an end tag.
    ``answer_start`` and ``answer_end`` frame the answer and are not part of it; ``closing`` leads
    a thought that is broken off to its answer.
    """

    start: tuple[str, ...] = ("<think>",)
    end: tuple[str, ...] = ("</think>",)
    implied: bool = False
    switches: tuple[str, ...] = ("enable_thinking",)
    thinks: bool = True
    off_values: tuple[str, ...] = ()
    interrupts: tuple[str, ...] = ()
    answer_start: tuple[str, ...] = ()
    answer_end: tuple[str, ...] = ()
    closing: str = ""
    suffix_pattern: str = ""
    tokens: tuple[str, ...] = ()


class Place(Enum):
    """Where in the output the next character stands."""

    BEFORE = 0
    """Nothing but whitespace so far; a start tag may come."""
    OPENED = 1
    """Right behind the start tag, whose newline is part of it."""
    INSIDE = 2
    CLOSED = 3
    """Behind an end tag: the newlines that follow are part of it."""
    LEAD = 4
    """Where the answer begins: a tag that opens it may come."""
    FRAMED = 5
    """Right behind the tag that opens the answer, whose newline is part of it."""
    ANSWER = 6


class TagPairReasoningParser:
    """A reasoning parser that is a table: subclasses give ``name`` and ``tags``."""

    name: ClassVar[str]
    api_version: ClassVar[int] = 1
    tags: ClassVar[TagPair] = TagPair()

    def __init__(self, context: ParserContext) -> None:
        tags = self.tags_for(context)
        self._scanner = TagPairScanner(tags, place_of(tags, context))

    @classmethod
    def tags_for(cls, context: ParserContext) -> TagPair:
        """The tags of this request, the pair that is used first."""
        tags = with_suffix(cls.tags, context.checkpoint.chat_template or "")
        if len(tags.start) < 2 or len(tags.start) != len(tags.end):
            return tags
        return _used_pair_first(tags, context)

    @classmethod
    def markers_of(cls, checkpoint: CheckpointText) -> tuple[str, ...]:
        """Special tokens that the tags are made of."""
        tags = cls.tags_for(ParserContext(checkpoint=checkpoint))
        texts = (*tags.start, *tags.end, *tags.interrupts, *tags.answer_start, *tags.answer_end)
        return (*special_tokens(texts), *tags.tokens)

    @classmethod
    def boundary(cls, context: ParserContext) -> ReasoningBoundary | None:
        tags = cls.tags_for(context)
        place = place_of(tags, context)
        if place is Place.LEAD:
            return None
        return ReasoningBoundary(
            start=tags.start[0] if tags.start else None,
            end=tags.end[0],
            opened=place is not Place.BEFORE,
            other_ends=tags.end[1:] + tags.interrupts,
            answer=tags.answer_start[0] if tags.closing else "",
            closing=tags.closing,
        )

    def feed(self, text: str) -> list[Content | Reasoning]:
        return self._scanner.feed(text)

    def finish(self) -> list[Content | Reasoning]:
        return self._scanner.finish()


def place_of(tags: TagPair, context: ParserContext) -> Place:
    """Where the output begins."""
    prompt = context.prompt_suffix.rstrip()
    if prompt.endswith(tags.end):
        return Place.LEAD
    if tags.start and prompt.endswith(tags.start):
        return Place.OPENED if prompt == context.prompt_suffix else Place.INSIDE
    if not thinks(tags, context.template_kwargs):
        return Place.LEAD
    return Place.OPENED if tags.implied else Place.BEFORE


def thinks(tags: TagPair, template_kwargs: Mapping[str, object]) -> bool:
    """What the switches say; any that is on counts where the default is off, and the reverse."""
    values = [template_kwargs[name] for name in tags.switches if name in template_kwargs]
    given = [bool(value) and value not in tags.off_values for value in values]
    if tags.thinks:
        return all(given)
    return any(given)


@lru_cache(maxsize=64)
def with_suffix(tags: TagPair, chat_template: str) -> TagPair:
    """The tags as this chat template writes them."""
    if not tags.suffix_pattern:
        return tags
    found = re.search(tags.suffix_pattern, chat_template)
    suffix = (found[1] or "") if found else ""
    return replace(
        tags,
        start=tuple(tag.replace("{suffix}", suffix) for tag in tags.start),
        end=tuple(tag.replace("{suffix}", suffix) for tag in tags.end),
        interrupts=tuple(tag.replace("{suffix}", suffix) for tag in tags.interrupts),
    )


def _used_pair_first(tags: TagPair, context: ParserContext) -> TagPair:
    prompt = context.prompt_suffix.rstrip()
    template = context.checkpoint.chat_template or ""
    pairs = sorted(
        zip(tags.start, tags.end, strict=True),
        key=lambda pair: (not prompt.endswith(pair), pair[0] not in template),
    )
    return replace(
        tags, start=tuple(start for start, _ in pairs), end=tuple(end for _, end in pairs)
    )


class TagPairScanner:
    """One pass over the output of a choice; the cost is linear in its length.

    The newlines with which templates frame the tags (one behind a start tag, one before an end
    tag, all behind an end tag) belong to the tags, so that sending the reasoning back renders the
    same prompt again.
    """

    def __init__(self, tags: TagPair, place: Place) -> None:
        self._tags = tags
        self._place = place
        self._may_start = bool(tags.start) and place in (Place.BEFORE, Place.OPENED)
        self._start = markers_of(tags.start) if tags.start else None
        self._ends = markers_of(tags.end + tags.interrupts, newline=True)
        self._answer_start = markers_of(tags.answer_start) if tags.answer_start else None
        self._answer_end = markers_of(tags.answer_end, newline=True) if tags.answer_end else None
        self._held = ""
        if place is Place.LEAD and self._answer_start is None:
            self._place = Place.ANSWER

    def feed(self, text: str) -> list[Content | Reasoning]:
        """The events that ``text`` completes."""
        if self._place is Place.ANSWER and self._answer_end is None:
            return [Content(text)] if text else []
        events: list[Content | Reasoning] = []
        rest, self._held = self._held + text, ""
        while rest:
            rest = self._step(rest, events)
        return events

    def finish(self) -> list[Content | Reasoning]:
        """The rest: held back text that has become no tag."""
        held, self._held = self._held, ""
        if not held:
            return []
        inside = self._place in (Place.OPENED, Place.INSIDE)
        return [Reasoning(held) if inside else Content(held)]

    def _step(self, text: str, events: list[Content | Reasoning]) -> str:
        """Consumes some of the text, or holds what may be a tag; returns what is left."""
        if self._place is Place.BEFORE:
            return self._before(text)
        if self._place is Place.OPENED:
            return self._opened(text)
        if self._place is Place.INSIDE:
            return self._inside(text, events)
        if self._place is Place.CLOSED:
            rest = text.lstrip("\n")
            if rest:
                self._place = Place.ANSWER if self._answer_start is None else Place.LEAD
            return rest
        if self._place is Place.LEAD:
            return self._lead(text)
        if self._place is Place.FRAMED:
            self._place = Place.ANSWER
            return text.removeprefix("\n")
        return self._answer(text, events)

    def _before(self, text: str) -> str:
        found = self._leading_start(text)
        if found is None:
            self._held = text
            return ""
        if found:
            self._place = Place.OPENED
        else:
            self._place = Place.ANSWER if self._answer_start is None else Place.LEAD
        self._may_start = False
        return text[found:]

    def _opened(self, text: str) -> str:
        if self._may_start:
            found = self._leading_start(text)
            if found is None:
                self._held = text
                return ""
            self._may_start = False
            if found:
                return text[found:]
        self._place = Place.INSIDE
        return text.removeprefix("\n")

    def _leading_start(self, text: str) -> int | None:
        """End of a start tag at the beginning of the output, 0 if there is none, None if that
        cannot be said yet."""
        if self._start is None:
            return 0
        stripped = text.lstrip()
        space = len(text) - len(stripped)
        if space > _MAX_LEADING_SPACE:
            return 0
        end = self._start.match(stripped)
        return space + end if end else end

    def _inside(self, text: str, events: list[Content | Reasoning]) -> str:
        found = self._ends.find(text)
        if found is None:
            keep = self._ends.held(text)
            _add(events, Reasoning, text[: len(text) - keep])
            self._held = text[len(text) - keep :]
            return ""
        begin, end, marker = found
        _add(events, Reasoning, text[:begin])
        self._place = Place.CLOSED
        return text[end - len(marker) :] if marker in self._tags.interrupts else text[end:]

    def _lead(self, text: str) -> str:
        assert self._answer_start is not None
        end = self._answer_start.match(text)
        if end is None:
            self._held = text
            return ""
        self._place = Place.FRAMED if end else Place.ANSWER
        return text[end:]

    def _answer(self, text: str, events: list[Content | Reasoning]) -> str:
        if self._answer_end is None:
            _add(events, Content, text)
            return ""
        found = self._answer_end.find(text)
        if found is None:
            keep = self._answer_end.held(text)
            _add(events, Content, text[: len(text) - keep])
            self._held = text[len(text) - keep :]
            return ""
        _add(events, Content, text[: found[0]])
        self._place = Place.CLOSED
        return text[found[1] :]


def _add(
    events: list[Content | Reasoning], kind: type[Content] | type[Reasoning], text: str
) -> None:
    if text:
        events.append(kind(text))
