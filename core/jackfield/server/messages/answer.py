"""A message as one JSON answer, or as a stream of events in Anthropic's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jackfield.contracts.generation import ChoiceDelta
from jackfield.errors import RequestError
from jackfield.server.delivery import Answer, Frames
from jackfield.server.door import new_id
from jackfield.server.errors import anthropic_error
from jackfield.server.json_bytes import dumps, loads
from jackfield.server.output_items import Change, EventView, Item, OutputItems

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageShape:
    """What a message says of its request."""

    id: str
    model: str
    num_prompt_tokens: int
    usage_details: bool
    """Whether tokens read from the prefix cache are told apart."""
    ends_with_context: bool
    """The context has less room than ``max_tokens``."""

    def message(
        self, content: list[dict[str, Any]], end: Mapping[str, Any], usage: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The message object. What Anthropic's has and nothing here fills is null."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            **end,
            "usage": {
                **usage,
                "cache_creation": None,
                "inference_geo": None,
                "service_tier": "standard",
                "speed": None,
            },
            "diagnostics": None,
        }

    def usage(self, items: OutputItems) -> dict[str, Any]:
        """Token counts so far; as Anthropic has it, cached tokens are no input tokens."""
        num_cached = items.num_cached_tokens if self.usage_details else 0
        return {
            "input_tokens": self.num_prompt_tokens - num_cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": num_cached,
            "output_tokens": items.num_output_tokens,
            "output_tokens_details": {"thinking_tokens": items.num_reasoning_tokens},
            "server_tool_use": None,
        }

    def end(self, items: OutputItems) -> dict[str, Any]:
        """Why the message ended."""
        finish = items.finish
        assert finish is not None, "the choice has finished"
        sequence = None
        if finish.reason == "length":
            reason = "model_context_window_exceeded" if self.ends_with_context else "max_tokens"
        elif items.called:
            reason = "tool_use"
        elif isinstance(finish.stop_reason, str):
            reason, sequence = "stop_sequence", finish.stop_reason
        else:
            reason = "end_turn"
        return {**_RUNNING, "stop_reason": reason, "stop_sequence": sequence}


_RUNNING = dict.fromkeys(("container", "stop_details", "stop_reason", "stop_sequence"))


def whole_block(item: Item) -> dict[str, Any]:
    """The content block of an item that is closed."""
    if item.kind == "text":
        return {"type": "text", "text": item.text}
    if item.kind == "thinking":
        return {"type": "thinking", "thinking": item.text, "signature": _signature()}
    return _call(item, loads(item.text.encode()) if item.text else {})


def begun_block(item: Item) -> dict[str, Any]:
    """The content block as its first event has it."""
    if item.kind == "text":
        return {"type": "text", "text": ""}
    if item.kind == "thinking":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return _call(item, {})


def _call(item: Item, arguments: Any) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": item.call_id or new_id("toolu_"),
        "name": item.name,
        "input": arguments,
        "caller": {"type": "direct"},
    }


def _signature() -> str:
    """Clients drop thinking without one; there is nothing here that it could prove."""
    return new_id("sig_")


class MessageAnswer(Answer):
    """Gathers the deltas into one message."""

    def __init__(self, shape: MessageShape, view: EventView) -> None:
        self._shape = shape
        self._items = OutputItems(view)

    def add(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> None:
        """Takes deltas; there is one prompt with one choice."""
        for delta in deltas:
            self._items.feed(delta)

    def body(self) -> bytes:
        """The message."""
        shape, items = self._shape, self._items
        content = [whole_block(item) for item in items.items]
        return dumps(shape.message(content, shape.end(items), shape.usage(items)))


class MessageFrames(Frames):
    """Turns deltas into events. The frame of a piece of text is bytes made once a block around
    the text as JSON."""

    def __init__(self, shape: MessageShape, view: EventView) -> None:
        self._shape = shape
        self._items = OutputItems(view)
        self._begun = False
        self._delta_head = b""

    @property
    def done(self) -> bool:
        """Whether the choice has finished."""
        return self._items.finish is not None

    def feed(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> bytes:
        """The events of these deltas; the first ones announce the message."""
        changes = [change for delta in deltas for change in self._items.feed(delta)]
        frames: list[bytes] = []
        if not self._begun:
            self._begun = True
            message = self._shape.message([], _RUNNING, self._shape.usage(self._items))
            frames += (_frame("message_start", {"message": message}), _PING)
        for change in changes:
            self._add(frames, change)
        return b"".join(frames)

    def ending(self) -> bytes:
        """Why the message ended, with the final counts."""
        end = {"delta": self._shape.end(self._items), "usage": self._shape.usage(self._items)}
        return _frame("message_delta", end) + _frame("message_stop", {})

    def failure(self, error: RequestError) -> bytes:
        """An error event; nothing follows."""
        return b"event: error\ndata: %b\n\n" % dumps(anthropic_error(error))

    def _add(self, frames: list[bytes], change: Change) -> None:
        item = change.item
        if change.kind == "grew":
            frames += (self._delta_head, dumps(change.text), b"}}\n\n")
        elif change.kind == "opened":
            block = {"index": item.index, "content_block": begun_block(item)}
            frames.append(_frame("content_block_start", block))
            kind, field = _DELTAS[item.kind]
            self._delta_head = (
                b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
                b'"delta":{"type":"%b","%b":' % (item.index, kind, field)
            )
        else:
            if item.kind == "thinking":
                delta = {"type": "signature_delta", "signature": _signature()}
                signed = {"index": item.index, "delta": delta}
                frames.append(_frame("content_block_delta", signed))
            frames.append(_frame("content_block_stop", {"index": item.index}))


def _frame(kind: str, fields: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps({"type": kind, **fields}))


_DELTAS = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "call": (b"input_json_delta", b"partial_json"),
}
