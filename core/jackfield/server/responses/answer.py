"""A response as one JSON answer, or as a stream of events in OpenAI's order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from jackfield.contracts.generation import ChoiceDelta
from jackfield.errors import RequestError
from jackfield.server.delivery import Answer, Frames
from jackfield.server.json_bytes import dumps
from jackfield.server.output_items import Change, EventView, Item, OutputItems
from jackfield.server.responses.objects import (
    ItemIds,
    ResponseShape,
    begun_item,
    content_part,
    failed_response,
    finished_response,
    running_response,
    whole_item,
)

Keep = Callable[[dict[str, Any]], Awaitable[None]]
"""Called with the finished response."""


class ResponseAnswer(Answer):
    """Gathers the deltas into one response object."""

    def __init__(self, shape: ResponseShape, view: EventView, keep: Keep) -> None:
        self._shape = shape
        self._items = OutputItems(view)
        self._keep = keep
        self._response: dict[str, Any] = {}

    def add(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> None:
        """Takes deltas; there is one prompt with one choice."""
        for delta in deltas:
            self._items.feed(delta)

    def body(self) -> bytes:
        """The response object."""
        self._response = finished_response(self._items, ItemIds(self._shape.id), self._shape)
        return dumps(self._response)

    async def completed(self) -> None:
        """Keeps the response."""
        await self._keep(self._response)


class ResponseFrames(Frames):
    """Turns deltas into events, each with its ``sequence_number``.

    The frame of a piece of text is bytes made once an item around the text as JSON.
    """

    def __init__(self, shape: ResponseShape, view: EventView, keep: Keep) -> None:
        self._shape = shape
        self._items = OutputItems(view)
        self._ids = ItemIds(shape.id)
        self._keep = keep
        self._response: dict[str, Any] = {}
        self._number = 0
        self._delta_head = b""

    @property
    def done(self) -> bool:
        """Whether the choice has finished."""
        return self._items.finish is not None

    def feed(self, prompt: int, deltas: Sequence[ChoiceDelta]) -> bytes:
        """The events of these deltas; the first ones announce the response."""
        frames: list[bytes] = []
        if not self._number:
            response = running_response(self._shape)
            frames.append(self._frame("response.created", {"response": response}))
            frames.append(self._frame("response.in_progress", {"response": response}))
        for delta in deltas:
            for change in self._items.feed(delta):
                self._add(frames, change)
        return b"".join(frames)

    async def completed(self) -> None:
        """Keeps the response."""
        self._response = finished_response(self._items, self._ids, self._shape)
        await self._keep(self._response)

    def ending(self) -> bytes:
        """The whole response once more."""
        kind = f"response.{self._response['status']}"
        return self._frame(kind, {"response": self._response})

    def failure(self, error: RequestError) -> bytes:
        """The response with its error; as OpenAI has it, nothing follows."""
        return self._frame("response.failed", {"response": failed_response(error, self._shape)})

    def _frame(self, kind: str, fields: dict[str, Any]) -> bytes:
        data = dumps({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _add(self, frames: list[bytes], change: Change) -> None:
        if change.kind == "grew":
            logprobs = b""
            if change.item.kind == "text":
                logprobs = b',"logprobs":' + dumps(self._shape.logprobs(change.logprobs))
            frames += (self._delta_head, dumps(change.text), logprobs)
            frames.append(b',"sequence_number":%d}\n\n' % self._number)
            self._number += 1
        elif change.kind == "opened":
            self._open(frames, change.item)
        else:
            self._close(frames, change.item)

    def _open(self, frames: list[bytes], item: Item) -> None:
        begun = begun_item(item, self._ids, self._shape)
        frames.append(
            self._frame("response.output_item.added", {"output_index": item.index, "item": begun})
        )
        where = self._where(item)
        if item.kind != "call":
            part = content_part(Item(item.index, item.kind), self._shape)
            frames.append(self._frame("response.content_part.added", {**where, "part": part}))
        kind = _TEXT_EVENTS[item.kind] + ".delta"
        opening = dumps({"type": kind, **where})[:-1]
        self._delta_head = b'event: %b\ndata: %b,"delta":' % (kind.encode(), opening)

    def _close(self, frames: list[bytes], item: Item) -> None:
        where = self._where(item)
        kind = _TEXT_EVENTS[item.kind] + ".done"
        if item.kind == "call":
            said: dict[str, Any] = {
                "name": self._shape.called(item)["name"],
                "arguments": item.text,
            }
        else:
            said = {"text": item.text}
        if item.kind == "text":
            said["logprobs"] = self._shape.logprobs(item.logprobs)
        frames.append(self._frame(kind, {**where, **said}))
        if item.kind != "call":
            part = content_part(item, self._shape)
            frames.append(self._frame("response.content_part.done", {**where, "part": part}))
        whole = whole_item(item, self._ids, self._shape)
        frames.append(
            self._frame("response.output_item.done", {"output_index": item.index, "item": whole})
        )

    def _where(self, item: Item) -> dict[str, Any]:
        where: dict[str, Any] = {"item_id": self._ids.of(item), "output_index": item.index}
        if item.kind != "call":
            where["content_index"] = 0
        return where


_TEXT_EVENTS = {
    "thinking": "response.reasoning_text",
    "text": "response.output_text",
    "call": "response.function_call_arguments",
}
