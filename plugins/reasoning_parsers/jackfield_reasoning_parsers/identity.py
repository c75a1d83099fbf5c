"""No reasoning at all, or reasoning that stays in the content."""

from __future__ import annotations

from typing import ClassVar

from jackfield.contracts.text import Content, ParserContext, Reasoning, ReasoningBoundary


class IdentityReasoningParser:
    """Everything is content."""

    name: ClassVar[str] = "identity"
    api_version: ClassVar[int] = 1

    def __init__(self, context: ParserContext) -> None:
        pass

    @classmethod
    def boundary(cls, context: ParserContext) -> ReasoningBoundary | None:
        return None

    def feed(self, text: str) -> list[Content | Reasoning]:
        return [Content(text)] if text else []

    def finish(self) -> list[Content | Reasoning]:
        return []


class MiniMaxM2AppendThinkReasoningParser(IdentityReasoningParser):
    """MiniMax M2 for clients that send thoughts back as content: the start tag, which the template
    wrote, is put in front again, and all is content."""

    name: ClassVar[str] = "minimax_m2_append_think"

    def __init__(self, context: ParserContext) -> None:
        self._start = "<think>"

    @classmethod
    def boundary(cls, context: ParserContext) -> ReasoningBoundary | None:
        return ReasoningBoundary(None, "</think>", opened=True)

    def feed(self, text: str) -> list[Content | Reasoning]:
        if not text:
            return []
        start, self._start = self._start, ""
        return [Content(start + text)]


class MiniMaxAppendThinkReasoningParser(MiniMaxM2AppendThinkReasoningParser):
    """The name that SGLang gives it."""

    name: ClassVar[str] = "minimax_append_think"
