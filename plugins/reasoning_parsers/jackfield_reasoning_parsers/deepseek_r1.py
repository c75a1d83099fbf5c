"""DeepSeek R1 and its kin: everything before ``</think>`` is reasoning, start tag or not."""

from __future__ import annotations

from typing import ClassVar

from jackfield.contracts.text import Content, ParserContext, Reasoning, ReasoningBoundary
from jackfield_reasoning_parsers.tag_pair import Place, TagPairScanner, prompt_place

START, END = "<think>", "</think>"


class DeepSeekR1ReasoningParser:
    """The start tag may be in the prompt, in the output or nowhere. Only where the template
    has already closed the thinking is everything content."""

    name: ClassVar[str] = "deepseek_r1"
    api_version: ClassVar[int] = 1

    def __init__(self, context: ParserContext) -> None:
        place = prompt_place(context.prompt_suffix, START, END) or Place.OPENED
        self._scanner = TagPairScanner(START, END, place, start_is_optional=place is Place.OPENED)

    @classmethod
    def boundary(cls, context: ParserContext) -> ReasoningBoundary | None:
        if prompt_place(context.prompt_suffix, START, END) is Place.AFTER:
            return None
        return ReasoningBoundary(START, END, opened=True)

    def feed(self, text: str) -> list[Content | Reasoning]:
        return self._scanner.feed(text)

    def finish(self) -> list[Content | Reasoning]:
        return self._scanner.finish()
