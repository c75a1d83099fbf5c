"""The wire format of completions: one JSON answer, or a stream of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from jackfield.contracts.generation import ChoiceDelta
from jackfield.contracts.messages import TokenLogprobs
from jackfield.server.delivery import Answer, Frames
from jackfield.server.errors import check_finish
from jackfield.server.gathered import GatheredChoice
from jackfield.server.json_bytes import dumps
from jackfield.server.request_fields import StreamOptions
from jackfield.server.token_text import (
    LegacyLogprobs,
    TokenText,
    join_pieces,
    prompt_logprobs_json,
)
from jackfield.server.usage import Usage


class CompletionShape(msgspec.Struct, frozen=True, kw_only=True):
    """What one completion request wants to see."""

    id: str
    created: int
    model: str
    prompts: Sequence[tuple[int, ...]]
    n: int
    num_generated: int
    """Choices for each prompt; more than ``n`` where the best are to be picked."""
    names: TokenText
    echoes: Sequence[str] | None
    """The prompts as texts, where they are to be repeated."""
    generate: bool
    """False: only the prompt is wanted (``echo`` with ``max_tokens`` 0)."""
    logprobs: bool
    prompt_logprobs: bool
    token_ids: bool
    usage_details: bool

    @property
    def num_choices(self) -> int:
        """Choices of all prompts together, as answered."""
        return self.n * len(self.prompts)

    def new_usage(self) -> Usage:
        """The counter for this request's answer."""
        return Usage(sum(map(len, self.prompts)), self.usage_details)

    def wanted(self, deltas: Sequence[ChoiceDelta]) -> Sequence[ChoiceDelta]:
        """The deltas without the output, where only the prompt is wanted."""
        if self.generate:
            return deltas
        return [replace(delta, text="", token_ids=(), logprobs=()) for delta in deltas]

    def echo_logprobs(
        self, legacy: LegacyLogprobs, prompt: int, entries: Iterable[TokenLogprobs]
    ) -> list[dict[str, list[object]]]:
        """The prompt's part of the legacy logprobs."""
        return [legacy.first_prompt_token(self.prompts[prompt][0]), legacy.piece(entries)]


class CompletionAnswer(Answer):
    """Gathers the deltas of all prompts into one JSON answer."""

    def __init__(self, shape: CompletionShape) -> None:
        self._shape = shape
        self._usage = shape.new_usage()
        self._prompts = [
            [GatheredChoice() for _ in range(shape.num_generated)] for _ in shape.prompts
        ]

    def add(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> None:
        """Takes deltas of prompt number ``prompt``."""
        deltas = self._shape.wanted(deltas)
        choices = self._prompts[prompt]
        for delta in deltas:
            choices[delta.index].add(delta)
        self._usage.count(prompt, deltas)

    def body(self) -> bytes:
        """The answer, once every choice has finished."""
        shape = self._shape
        answered = [
            (prompt, choice)
            for prompt, choices in enumerate(self._prompts)
            for choice in best(choices, shape.n)
        ]
        return dumps(
            {
                "id": shape.id,
                "object": "text_completion",
                "created": shape.created,
                "model": shape.model,
                "choices": [self._choice(index, *one) for index, one in enumerate(answered)],
                "usage": self._usage.as_json(),
            }
        )

    def _choice(self, index: int, prompt: int, choice: GatheredChoice) -> dict[str, object]:
        shape = self._shape
        echo = shape.echoes[prompt] if shape.echoes is not None else ""
        assert choice.finish is not None, "every choice has finished"
        result: dict[str, object] = {
            "index": index,
            "text": echo + choice.text,
            "logprobs": self._logprobs(prompt, choice) if shape.logprobs else None,
            "finish_reason": choice.finish.reason,
            "stop_reason": choice.finish.stop_reason,
        }
        if shape.prompt_logprobs:
            result["prompt_logprobs"] = prompt_logprobs_json(choice.prompt_logprobs, shape.names)
        if shape.token_ids:
            result["prompt_token_ids"] = shape.prompts[prompt]
            result["token_ids"] = choice.token_ids
        return result

    def _logprobs(self, prompt: int, choice: GatheredChoice) -> dict[str, list[object]] | None:
        legacy = LegacyLogprobs(self._shape.names)
        pieces = []
        if self._shape.echoes is not None:
            pieces += self._shape.echo_logprobs(legacy, prompt, choice.prompt_logprobs)
        return join_pieces([*pieces, legacy.piece(choice.logprobs)])


def best(choices: list[GatheredChoice], count: int) -> list[GatheredChoice]:
    """The choices whose tokens were the most likely on average, best first (as OpenAI has it)."""
    if len(choices) == count:
        return choices

    def likelihood(choice: GatheredChoice) -> float:
        return sum(entry.logprob for entry in choice.logprobs) / max(1, len(choice.logprobs))

    return sorted(choices, key=likelihood, reverse=True)[:count]


class CompletionFrames(Frames):
    """Turns deltas into server-sent events.

    A plain text frame is bytes made once a request around the text as JSON; everything else
    goes the general way through a dictionary.
    """

    def __init__(self, shape: CompletionShape, options: StreamOptions) -> None:
        self._shape = shape
        self._include_usage = include_usage = bool(options.include_usage)
        self._continuous = continuous = bool(options.continuous_usage_stats)
        self._usage = shape.new_usage()
        self._open = shape.num_choices
        self._plain = not (
            shape.logprobs or shape.token_ids or shape.echoes is not None or continuous
        )
        self._header = (
            b'data: {"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":['
            % (dumps(shape.id), shape.created, dumps(shape.model))
        )
        self._close = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._running = b',"logprobs":null,"finish_reason":null}' + self._close
        self._heads = [
            self._header + b'{"index":%d,"text":' % index for index in range(shape.num_choices)
        ]
        self._legacy = [LegacyLogprobs(shape.names) for _ in range(shape.num_choices)]
        self._prompt_logprobs: list[list[TokenLogprobs]] = [[] for _ in range(shape.num_choices)]
        self._begun = [False] * shape.num_choices

    @property
    def done(self) -> bool:
        """Whether every choice has finished."""
        return not self._open

    def feed(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> bytes:
        """The frames of these deltas; may be empty."""
        deltas = self._shape.wanted(deltas)
        self._usage.count(prompt, deltas)
        first = prompt * self._shape.n
        if len(deltas) == 1 and self._plain and deltas[0].finish is None:
            # What nearly every token is.
            delta = deltas[0]
            head = self._heads[first + delta.index]
            return b"%b%b%b" % (head, dumps(delta.text), self._running) if delta.text else b""
        frames: list[bytes] = []
        for delta in deltas:
            index = first + delta.index
            if delta.finish is not None:
                check_finish(delta.finish)
                self._open -= 1
            if self._plain:
                self._add_plain(frames, index, delta)
            else:
                self._add_full(frames, index, prompt, delta)
        return b"".join(frames)

    def ending(self) -> bytes:
        """What follows the last choice."""
        if not self._include_usage:
            return b"data: [DONE]\n\n"
        usage = dumps(self._usage.as_json())
        return b'%b],"usage":%b}\n\ndata: [DONE]\n\n' % (self._header, usage)

    def _add_plain(self, frames: list[bytes], index: int, delta: ChoiceDelta) -> None:
        if delta.finish is not None:
            tail = b',"logprobs":null,"finish_reason":%b,"stop_reason":%b}' % (
                dumps(delta.finish.reason),
                dumps(delta.finish.stop_reason),
            )
            frames += (self._heads[index], dumps(delta.text), tail, self._close)
        elif delta.text:
            frames += (self._heads[index], dumps(delta.text), self._running)

    def _add_full(self, frames: list[bytes], index: int, prompt: int, delta: ChoiceDelta) -> None:
        self._prompt_logprobs[index] += delta.prompt_logprobs
        if not delta.token_ids and delta.finish is None:
            return
        shape = self._shape
        text = delta.text
        pieces = []
        choice: dict[str, object] = {"index": index}
        if not self._begun[index]:
            self._begun[index] = True
            text = (shape.echoes[prompt] if shape.echoes is not None else "") + text
            if shape.token_ids:
                choice["prompt_token_ids"] = shape.prompts[prompt]
            if shape.logprobs and shape.echoes is not None:
                pieces = shape.echo_logprobs(
                    self._legacy[index], prompt, self._prompt_logprobs[index]
                )
        if shape.logprobs and delta.logprobs:
            pieces.append(self._legacy[index].piece(delta.logprobs))
        choice |= {"text": text, "logprobs": join_pieces(pieces), "finish_reason": None}
        if shape.token_ids:
            choice["token_ids"] = delta.token_ids
        if delta.finish is not None:
            choice["finish_reason"] = delta.finish.reason
            choice["stop_reason"] = delta.finish.stop_reason
        frames += (self._header, dumps(choice), self._frame_close())

    def _frame_close(self) -> bytes:
        if not self._continuous:
            return self._close
        return b'],"usage":%b}\n\n' % dumps(self._usage.as_json())
