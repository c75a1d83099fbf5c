"""The text half of generation: tokenizer and parsers, and what a request's choices are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jackfield.contracts.generation import GenerationRequest
from jackfield.contracts.text import (
    BoundedReasoning,
    ParserContext,
    ReasoningBoundary,
    ReasoningParser,
    Tokenizer,
    ToolParser,
)
from jackfield.errors import RequestError
from jackfield.llm.parser_counts import ParserCounts
from jackfield.llm.parsers import GuardedParser, ParserPlugin
from jackfield.planning import ServingPlan
from jackfield.registry import Registry
from jackfield.text.output import ChoiceOutput
from jackfield.text.reasoning import ReasoningIds
from jackfield.text.tokenizer import load_tokenizer

PROMPT_SUFFIX_CHARACTERS = 256


class TextSide:
    """Loaded once, by ``load``; then makes the choices of each request."""

    def __init__(self, plan: ServingPlan, registry: Registry) -> None:
        self.tokenizer: Tokenizer | None = None
        self._plan = plan
        self._registry = registry
        self._reasoning_parser: ParserPlugin[ReasoningParser] | None = None
        self._tool_parser: ParserPlugin[ToolParser] | None = None
        self._reasoning_markers: frozenset[int] = frozenset()
        self._tool_markers: frozenset[int] = frozenset()
        self._known_boundaries: dict[ReasoningBoundary, ReasoningIds | None] = {}

    def load(self) -> None:
        """Tokenizer and parsers. Takes its time: called in a thread while the engine loads."""
        plan, registry = self._plan, self._registry
        if plan.tokenizer_mode != "none":
            self.tokenizer = load_tokenizer(
                registry,
                plan.tokenizer_mode,
                str(plan.tokenizer_directory),
                trust_remote_code=plan.engine.worker.trust_remote_code,
            )
        if plan.reasoning_parser is not None:
            self._reasoning_parser = ParserPlugin(
                registry, "reasoning_parsers", plan.reasoning_parser
            )
            self._reasoning_markers = self._reasoning_parser.marker_ids(
                self.tokenizer, plan.checkpoint_text
            )
        if plan.tool_parser is not None:
            self._tool_parser = ParserPlugin(registry, "tool_parsers", plan.tool_parser)
            self._tool_markers = self._tool_parser.marker_ids(self.tokenizer, plan.checkpoint_text)

    @property
    def parser_counts(self) -> list[ParserCounts]:
        """What became of what the parsers in use saw."""
        return [
            plugin.counts
            for plugin in (self._reasoning_parser, self._tool_parser)
            if plugin is not None
        ]

    def context(self, request: GenerationRequest) -> ParserContext | None:
        """What parsers know of a request; None where it is not to be parsed."""
        if not request.parse:
            return None
        return ParserContext(
            prompt_suffix=(request.prompt_text or "")[-PROMPT_SUFFIX_CHARACTERS:],
            template_kwargs={**self._plan.template_defaults, **request.template_kwargs},
            tools=request.tools,
            checkpoint=self._plan.checkpoint_text,
        )

    def choices(
        self,
        request: GenerationRequest,
        context: ParserContext | None,
        reasoning_ids: ReasoningIds | None,
    ) -> list[ChoiceOutput]:
        """The request's choices before their first token."""
        return [
            self._choice(request, index, context, reasoning_ids)
            for index in range(request.sampling.n)
        ]

    def tool_structure(
        self, tools: Sequence[Mapping[str, object]], choice: str, *, parallel: bool
    ) -> Mapping[str, object] | None:
        """See ``AsyncLLM.tool_structure``."""
        if self._tool_parser is None:
            return None
        structure = getattr(self._tool_parser.found, "structure", None)
        if structure is None:
            return None
        found: Mapping[str, object] | None = structure(tools, choice, parallel=parallel)
        return found

    def reasoning_ids(
        self, request: GenerationRequest, context: ParserContext | None
    ) -> ReasoningIds | None:
        """Where this request's thinking ends; None if there is none, or if ids cannot tell."""
        has_budget = request.sampling.thinking_token_budget is not None
        plugin = self._reasoning_parser
        parser = None if plugin is None else plugin.found
        if context is None or parser is None or self.tokenizer is None:
            if has_budget:
                raise RequestError(
                    "thinking_token_budget needs a reasoning parser: use chat, and start the "
                    "server with --reasoning-parser",
                    param="thinking_token_budget",
                )
            return None
        boundary = parser.boundary(context) if issubclass(parser, BoundedReasoning) else None
        ids = None if boundary is None else self._boundary_ids(boundary)
        is_known = ids is not None or (boundary is None and issubclass(parser, BoundedReasoning))
        if has_budget and not is_known:
            raise RequestError(
                f"thinking_token_budget cannot be kept: with the reasoning parser {parser.name} "
                "no tokens of this model mark the end of the thinking",
                param="thinking_token_budget",
            )
        return ids

    def _choice(
        self,
        request: GenerationRequest,
        index: int,
        context: ParserContext | None,
        reasoning_ids: ReasoningIds | None,
    ) -> ChoiceOutput:
        reasoning: GuardedParser | None = None
        tools: GuardedParser | None = None
        kept: frozenset[int] = frozenset()
        if context is not None:
            if self._reasoning_parser is not None:
                reasoning = self._reasoning_parser.new(context)
                kept |= self._reasoning_markers
            if self._tool_parser is not None and request.tools:
                tools = self._tool_parser.new(context)
                kept |= self._tool_markers
        return ChoiceOutput(
            index,
            self.tokenizer,
            request.prompt_token_ids,
            request.sampling,
            reasoning,
            tools,
            reasoning_ids,
            kept,
        )

    def _boundary_ids(self, boundary: ReasoningBoundary) -> ReasoningIds | None:
        if boundary not in self._known_boundaries:
            assert self.tokenizer is not None
            self._known_boundaries[boundary] = ReasoningIds.of(boundary, self.tokenizer)
        return self._known_boundaries[boundary]
