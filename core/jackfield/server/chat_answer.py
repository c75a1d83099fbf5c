"""The wire format of chat: one JSON answer, or a stream of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jackfield.contracts.generation import ChoiceDelta, Finish
from jackfield.contracts.text import (
    Content,
    Event,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
)
from jackfield.server.delivery import Answer, Frames
from jackfield.server.door import new_id
from jackfield.server.errors import check_finish
from jackfield.server.gathered import GatheredChoice
from jackfield.server.json_bytes import dumps
from jackfield.server.output_items import EventView
from jackfield.server.request_fields import StreamOptions
from jackfield.server.token_text import TokenText, chat_logprobs, prompt_logprobs_json
from jackfield.server.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatShape:
    """What one chat request wants to see."""

    id: str
    created: int
    model: str
    role: str
    prompt: tuple[int, ...]
    n: int
    names: TokenText
    view: EventView
    has_reasoning: bool
    """The message has a place for reasoning."""
    num_top: int | None
    """How many alternatives a token's logprobs have; None: no logprobs."""
    prompt_logprobs: bool
    token_ids: bool
    usage_details: bool

    def logprobs(self, delta: ChoiceDelta | GatheredChoice) -> dict[str, object] | None:
        """The choice's ``logprobs``, where they are asked for."""
        if self.num_top is None:
            return None
        return chat_logprobs(delta.logprobs, self.names, self.num_top)


def finish_reason(finish: Finish, called: bool) -> str:
    """OpenAI's name; a choice that called tools and stopped by itself ends in ``tool_calls``."""
    return "tool_calls" if called and finish.reason == "stop" else finish.reason


class ChatAnswer(Answer):
    """Gathers the deltas into one JSON answer."""

    def __init__(self, shape: ChatShape) -> None:
        self._shape = shape
        self._usage = Usage(len(shape.prompt), shape.usage_details, shape.has_reasoning)
        self._choices = [GatheredChoice() for _ in range(shape.n)]
        self._events: list[list[Event]] = [[] for _ in range(shape.n)]

    def add(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> None:
        """Takes deltas; a chat has one prompt, number 0."""
        for delta in deltas:
            self._choices[delta.index].add(delta)
            self._events[delta.index].extend(self._shape.view.events(delta))
        self._usage.count(prompt, deltas)

    def body(self) -> bytes:
        """The answer, once every choice has finished."""
        shape = self._shape
        answer: dict[str, object] = {
            "id": shape.id,
            "object": "chat.completion",
            "created": shape.created,
            "model": shape.model,
            "choices": [self._choice(index) for index in range(shape.n)],
            "usage": self._usage.as_json(),
        }
        if shape.prompt_logprobs:
            entries = self._choices[0].prompt_logprobs
            answer["prompt_logprobs"] = prompt_logprobs_json(entries, shape.names)
        if shape.token_ids:
            answer["prompt_token_ids"] = shape.prompt
        return dumps(answer)

    def _choice(self, index: int) -> dict[str, object]:
        choice = self._choices[index]
        assert choice.finish is not None, "every choice has finished"
        message = self._message(self._events[index])
        result: dict[str, object] = {
            "index": index,
            "message": message,
            "logprobs": self._shape.logprobs(choice),
            "finish_reason": finish_reason(choice.finish, "tool_calls" in message),
            "stop_reason": choice.finish.stop_reason,
        }
        if self._shape.token_ids:
            result["token_ids"] = choice.token_ids
        return result

    def _message(self, events: Iterable[Event]) -> dict[str, object]:
        content: list[str] = []
        reasoning: list[str] = []
        calls: list[dict[str, object]] = []
        arguments: list[list[str]] = []
        for event in events:
            if isinstance(event, Content):
                content.append(event.text)
            elif isinstance(event, Reasoning):
                reasoning.append(event.text)
            elif isinstance(event, ToolCallStart):
                call_id = event.id or new_id("call_")
                calls.append({"id": call_id, "type": "function", "name": event.name})
                arguments.append([])
            elif isinstance(event, ToolCallArguments):
                arguments[event.index].append(event.fragment)
        text = "".join(content)
        message: dict[str, object] = {
            "role": self._shape.role,
            "content": text if text or not calls else None,
            "refusal": None,
        }
        if self._shape.has_reasoning:
            message["reasoning"] = message["reasoning_content"] = "".join(reasoning) or None
        if calls:
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": "".join(fragments)},
                }
                for call, fragments in zip(calls, arguments, strict=True)
            ]
        return message


class ChatFrames(Frames):
    """Turns deltas into server-sent events: the role first, then one frame an event, then an
    empty delta with the finish reason. A frame is bytes made once around the new text."""

    def __init__(self, shape: ChatShape, options: StreamOptions) -> None:
        self._shape = shape
        self._include_usage = include_usage = bool(options.include_usage)
        self._continuous = continuous = bool(options.continuous_usage_stats)
        self._usage = Usage(len(shape.prompt), shape.usage_details, shape.has_reasoning)
        self._open = shape.n
        self._begun = [False] * shape.n
        self._called = [False] * shape.n
        self._header = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":['
            % (dumps(shape.id), shape.created, dumps(shape.model))
        )
        self._close = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._running = b'},"logprobs":null,"finish_reason":null}' + self._close
        self._heads = [self._header + b'{"index":%d,"delta":{' % index for index in range(shape.n)]
        self._plain = shape.num_top is None and not shape.token_ids and not continuous

    @property
    def done(self) -> bool:
        """Whether every choice has finished."""
        return not self._open

    def feed(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> bytes:
        """The frames of these deltas; may be empty."""
        self._usage.count(prompt, deltas)
        frames: list[bytes] = []
        for delta in deltas:
            index = delta.index
            if not self._begun[index]:
                self._begun[index] = True
                self._add_role(frames, index)
            if self._plain:
                for event in self._shape.view.events(delta):
                    fields = self._fields(index, event)
                    if fields:
                        frames += (self._heads[index], fields, self._running)
            elif delta.token_ids or delta.finish is not None:
                self._add_full(frames, index, delta)
            if delta.finish is not None:
                self._add_finish(frames, index, delta.finish)
        return b"".join(frames)

    def ending(self) -> bytes:
        """What follows the last choice."""
        if not self._include_usage:
            return b"data: [DONE]\n\n"
        usage = dumps(self._usage.as_json())
        return b'%b],"usage":%b}\n\ndata: [DONE]\n\n' % (self._header, usage)

    def _add_role(self, frames: list[bytes], index: int) -> None:
        fields = b'"role":%b,"content":""' % dumps(self._shape.role)
        tail = b'},"logprobs":null,"finish_reason":null'
        if self._shape.token_ids:
            tail += b',"prompt_token_ids":' + dumps(self._shape.prompt)
        frames += (self._heads[index], fields, tail, b"}", self._frame_close())

    def _add_finish(self, frames: list[bytes], index: int, finish: Finish) -> None:
        check_finish(finish)
        self._open -= 1
        tail = b'},"logprobs":null,"finish_reason":%b,"stop_reason":%b}' % (
            dumps(finish_reason(finish, self._called[index])),
            dumps(finish.stop_reason),
        )
        frames += (self._heads[index], tail, self._frame_close())

    def _add_full(self, frames: list[bytes], index: int, delta: ChoiceDelta) -> None:
        """One frame an event; the first has the delta's logprobs and ids, events or not."""
        shape = self._shape
        extra = b',"logprobs":%b,"finish_reason":null' % dumps(
            shape.logprobs(delta) if delta.logprobs else None
        )
        if shape.token_ids:
            extra += b',"token_ids":%b' % dumps(delta.token_ids)
        close = self._frame_close()
        fields = [self._fields(index, event) for event in shape.view.events(delta)]
        shown = [field for field in fields if field]
        if not shown and delta.token_ids:
            shown = [b'"content":""']
        for field in shown:
            frames += (self._heads[index], field, b"}", extra, b"}", close)
            extra = b',"logprobs":null,"finish_reason":null'

    def _fields(self, index: int, event: Event) -> bytes:
        """The inside of a delta; empty for an event that shows nothing."""
        if type(event) is Content:
            return b'"content":' + dumps(event.text)
        if type(event) is Reasoning:
            text = dumps(event.text)
            return b'"reasoning":%b,"reasoning_content":%b' % (text, text)
        if type(event) is ToolCallStart:
            self._called[index] = True
            return (
                b'"tool_calls":[{"index":%d,"id":%b,"type":"function",'
                b'"function":{"name":%b,"arguments":""}}]'
                % (event.index, dumps(event.id or new_id("call_")), dumps(event.name))
            )
        if type(event) is ToolCallArguments:
            fragment = dumps(event.fragment)
            return b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % (
                event.index,
                fragment,
            )
        return b""

    def _frame_close(self) -> bytes:
        if not self._continuous:
            return self._close
        return b'],"usage":%b}\n\n' % dumps(self._usage.as_json())
