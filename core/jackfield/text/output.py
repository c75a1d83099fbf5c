"""The output of one choice: ids to text, stop strings, reasoning, tool calls, deltas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jackfield.contracts.generation import ChoiceDelta, Finish, FinishName
from jackfield.contracts.messages import FinishReason, RequestFailed, TokenLogprobs
from jackfield.contracts.sampling import SamplingParams
from jackfield.contracts.text import (
    Content,
    Event,
    Reasoning,
    Tokenizer,
)
from jackfield.text.detokenizer import Detokenizer
from jackfield.text.events import merge_events
from jackfield.text.grammar import in_terms_of
from jackfield.text.reasoning import ReasoningCounter, ReasoningIds
from jackfield.text.stop import StopStrings

FINISH_NAMES: dict[int, FinishName] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORT: "abort",
    FinishReason.ERROR: "error",
}


class TextParser(Protocol):
    """What a choice needs of a reasoning parser or a tool parser."""

    def feed(self, text: str) -> Sequence[Event]: ...
    def finish(self) -> Sequence[Event]: ...


class ChoiceOutput:
    """Takes the ids of one choice as the engine samples them and says what the choice gained.

    Made per choice; used from one thread. ``kept`` are special tokens that the parsers need,
    ``skip_special_tokens`` or not. A token costs about 1.5 us without parsers.
    """

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer | None,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        reasoning: TextParser | None = None,
        tool_parser: TextParser | None = None,
        reasoning_ids: ReasoningIds | None = None,
        kept: frozenset[int] = frozenset(),
    ) -> None:
        self._index = index
        self._params = params
        self._eos = None if tokenizer is None else tokenizer.eos_token_id
        self._reasoning = reasoning
        self._tools = tool_parser
        self._counter = None if reasoning_ids is None else ReasoningCounter(reasoning_ids)
        self._detokenizer: Detokenizer | None = None
        if tokenizer is not None and params.detokenize:
            self._detokenizer = Detokenizer(
                tokenizer,
                prompt_token_ids,
                skip_special_tokens=params.skip_special_tokens,
                spaces_between_special_tokens=params.spaces_between_special_tokens,
                kept=kept,
            )
        stops = params.stop_strings
        self._stop = StopStrings(stops, params.include_stop_str_in_output) if stops else None
        self._unstoppable = params.min_tokens
        self._finished = False

    @property
    def takes_several(self) -> bool:
        """Whether ids may be fed several at once: what ends or divides the text is looked for
        behind each of them."""
        return not (self._stop or self._reasoning or self._tools)

    def feed_running(self, token_ids: tuple[int, ...], num_cached_tokens: int) -> ChoiceDelta:
        """``feed`` of ids behind which the request goes on, with nothing beside."""
        if self._detokenizer is None or self._stop or self._reasoning or self._tools:
            return self.feed(token_ids, num_cached_tokens=num_cached_tokens)
        text = self._detokenizer.feed(token_ids)
        events = (Content(text),) if text else ()
        return ChoiceDelta(self._index, text, token_ids, events, (), (), num_cached_tokens)

    def feed(
        self,
        token_ids: Sequence[int],
        finish: FinishReason = FinishReason.RUNNING,
        *,
        logprobs: Sequence[TokenLogprobs] = (),
        prompt_logprobs: Sequence[TokenLogprobs] = (),
        num_cached_tokens: int = 0,
        failure: RequestFailed | None = None,
    ) -> ChoiceDelta:
        """What these ids add; ``finish`` is the engine's word. A stop string found ends the
        choice: the delta has ``finish``, and the caller aborts the request in the engine.
        Nothing may be fed after a delta with ``finish``; a parser's exception is passed on."""
        assert not self._finished, "fed after its end"
        ended: Finish | None = None
        if finish:
            ended = self._engine_finish(token_ids, finish, failure)
        text, matched = self._text(token_ids, finish)
        if matched is not None and finish not in (FinishReason.ABORT, FinishReason.ERROR):
            ended = Finish("stop", matched)
        self._finished = ended is not None
        events = self._events(text)
        return ChoiceDelta(
            self._index,
            text,
            tuple(token_ids),
            events,
            tuple(logprobs),
            tuple(prompt_logprobs),
            num_cached_tokens,
            ended,
            0 if self._reasoning is None else self._num_reasoning(token_ids, events),
        )

    def _num_reasoning(self, token_ids: Sequence[int], events: Sequence[Event]) -> int:
        """By ids where these can tell, else by what the parser said of their text."""
        if self._counter is not None:
            return self._counter.feed(token_ids)
        return len(token_ids) if any(isinstance(event, Reasoning) for event in events) else 0

    def _engine_finish(
        self, token_ids: Sequence[int], finish: FinishReason, failure: RequestFailed | None
    ) -> Finish:
        stop_reason: int | None = None
        if finish == FinishReason.STOP and token_ids:
            last = token_ids[-1]
            is_eos = last == self._eos and not self._params.ignore_eos
            if last in self._params.stop_token_ids and not is_eos:
                stop_reason = last
        if failure is not None:
            message, param, wanted = failure.message, failure.param, self._params.structured_outputs
            if wanted is not None and param == "structured_outputs":
                message, param = in_terms_of(wanted, message)
            return Finish(FINISH_NAMES[finish], stop_reason, message, param)
        return Finish(FINISH_NAMES[finish], stop_reason)

    def _text(self, token_ids: Sequence[int], finish: FinishReason) -> tuple[str, str | None]:
        """New text with stop strings handled, and the stop string that was found."""
        detokenizer = self._detokenizer
        if detokenizer is None:
            return "", None
        if finish == FinishReason.STOP and not self._params.include_stop_str_in_output:
            token_ids = token_ids[:-1]  # the token that ended it is no part of the text
        if self._stop is None:
            text = detokenizer.feed(token_ids)
            return (text + detokenizer.finish() if finish else text), None
        return self._stoppable_text(self._stop, detokenizer, token_ids, bool(finish))

    def _stoppable_text(
        self, stop: StopStrings, detokenizer: Detokenizer, token_ids: Sequence[int], last: bool
    ) -> tuple[str, str | None]:
        free = ""
        if self._unstoppable > 0:
            count = min(self._unstoppable, len(token_ids))
            self._unstoppable -= count
            free = detokenizer.feed(token_ids[:count])
            token_ids = token_ids[count:]
        text = detokenizer.feed(token_ids)
        if last:
            text += detokenizer.finish()
        passed, matched = stop.feed(text)
        if last and matched is None:
            passed += stop.finish()
        return free + passed, matched

    def _events(self, text: str) -> tuple[Event, ...]:
        """The text through both parsers, each once and in this order."""
        if self._reasoning is None and self._tools is None:
            return (Content(text),) if text else ()
        events: list[Event] = [Content(text)] if text else []
        if self._reasoning is not None:
            parsed = self._reasoning.feed(text) if text else []
            if self._finished:
                parsed = [*parsed, *self._reasoning.finish()]
            events = list(parsed)
        if self._tools is not None:
            events = self._tool_events(self._tools, events)
        return tuple(merge_events(events))

    def _tool_events(self, tools: TextParser, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if isinstance(event, Content):
                out.extend(tools.feed(event.text))
            else:
                out.append(event)
        if self._finished:
            out.extend(tools.finish())
        return out
