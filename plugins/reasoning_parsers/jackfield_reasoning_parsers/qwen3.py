"""Qwen3 and its kin: ``<think>`` opens the reasoning, in the output or in the prompt."""

from __future__ import annotations

from typing import ClassVar

from jackfield.contracts.text import Content, ParserContext, Reasoning, ReasoningBoundary
from jackfield_reasoning_parsers.tag_pair import Place, TagPairScanner, prompt_place

START, END = "<think>", "</think>"


class Qwen3ReasoningParser:
    """With ``enable_thinking`` false, or where the template has closed the thinking, all is
    content; where the template has opened it, the output begins inside; else the output has to
    begin with the start tag to be reasoning."""

    name: ClassVar[str] = "qwen3"
    api_version: ClassVar[int] = 1

    def __init__(self, context: ParserContext) -> None:
        place = _place(context)
        self._scanner = TagPairScanner(START, END, place, start_is_optional=place is Place.OPENED)

    @classmethod
    def boundary(cls, context: ParserContext) -> ReasoningBoundary | None:
        place = _place(context)
        if place is Place.AFTER:
            return None
        return ReasoningBoundary(START, END, opened=place is not Place.BEFORE)

    def feed(self, text: str) -> list[Content | Reasoning]:
        return self._scanner.feed(text)

    def finish(self) -> list[Content | Reasoning]:
        return self._scanner.finish()


def _place(context: ParserContext) -> Place:
    if context.template_kwargs.get("enable_thinking") is False:
        return Place.AFTER
    return prompt_place(context.prompt_suffix, START, END) or Place.BEFORE
