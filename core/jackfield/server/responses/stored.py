"""Finished responses, kept: to be continued, looked at and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jackfield.contracts.response_store import ResponseStore, StoreLimits
from jackfield.errors import NotFoundError, RequestError
from jackfield.registry import Registry
from jackfield.server.asgi import off_loop
from jackfield.server.door import new_id
from jackfield.server.json_bytes import dumps, loads
from jackfield.server.options import ServerOptions
from jackfield.server.responses.objects import response_place

MAX_TURNS = 1024
"""How many earlier responses a request may stand on."""

_PREFIXES = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "reasoning": "rs_",
}

Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class History:
    """The input and output items before a request, oldest first; ``num_bytes`` of their records."""

    items: Items = ()
    num_bytes: int = 0


class StoredResponses:
    """Records in a store: the response, and the input that led to it."""

    def __init__(self, store: ResponseStore | None) -> None:
        """None: nothing is kept."""
        self._store = store

    @property
    def keeps(self) -> bool:
        """Whether there is a store."""
        return self._store is not None

    async def keep(self, response: Mapping[str, Any], given: Items) -> None:
        """Keeps a finished response, where there is a store."""
        if self._store is None:
            return
        record = {"response": response, "input": [_listed(item) for item in given]}
        await self._store.put(response["id"], dumps(record))

    async def response(self, response_id: str) -> Any:
        """The response object; ``NotFoundError`` if it is not kept."""
        record, _ = await self._record(response_id, "response_id")
        return record["response"]

    async def input_items(self, response_id: str) -> list[Any]:
        """The input items of the request, oldest first."""
        record, _ = await self._record(response_id, "response_id")
        items: list[Any] = record["input"]
        return items

    async def delete(self, response_id: str) -> None:
        """Forgets a response; ``NotFoundError`` if it is not kept."""
        if self._store is None or not await self._store.delete(response_id):
            raise _not_found(response_id, "response_id")

    async def history(self, response_id: str) -> History:
        """All that was said up to a response, it included."""
        turns: list[list[Any]] = []
        num_bytes = 0
        previous: str | None = response_id
        while previous is not None:
            if len(turns) == MAX_TURNS:
                raise RequestError(
                    f"The response stands on more than {MAX_TURNS} others",
                    param="previous_response_id",
                )
            record, length = await self._record(previous, "previous_response_id")
            num_bytes += length
            turns.append([*record["input"], *record["response"]["output"]])
            previous = record["response"]["previous_response_id"]
        return History([item for turn in reversed(turns) for item in turn], num_bytes)

    async def with_items(self, given: Sequence[Any]) -> tuple[list[Any], int]:
        """Input items with those of kept answers for the ``item_reference`` to them, and how many
        bytes were read for that; ``NotFoundError`` for what is not kept. As OpenAI has it, an item
        stands in the input once: many short references to a long text would be a very long one."""
        outputs: dict[str, Sequence[Any]] = {}
        seen: set[tuple[str, int]] = set()
        items: list[Any] = []
        num_bytes = 0
        for index, item in enumerate(given):
            if type(item) is not dict or item.get("type") != "item_reference":
                items.append(item)
                continue
            param = f"input[{index}].id"
            item_id = item.get("id")
            if not isinstance(item_id, str):
                raise RequestError(f"'{param}' must be a text", param=param)
            place = response_place(item_id)
            if place is None:
                raise _not_found(item_id, param)
            if place in seen:
                raise RequestError(f"'{item_id}' stands in the input twice", param=param)
            seen.add(place)
            response_id, number = place
            if response_id not in outputs:
                if len(outputs) == MAX_TURNS:
                    raise RequestError(f"Items of more than {MAX_TURNS} responses", param="input")
                record, length = await self._record(response_id, param)
                outputs[response_id] = record["response"]["output"]
                num_bytes += length
            if number >= len(outputs[response_id]):
                raise _not_found(item_id, param)
            items.append(outputs[response_id][number])
        return items, num_bytes

    async def _record(self, response_id: str, param: str) -> tuple[Any, int]:
        record = None if self._store is None else await self._store.get(response_id)
        if record is None:
            raise _not_found(response_id, param)
        found = record
        return await off_loop(len(found), lambda: loads(found)), len(found)


def open_store(options: ServerOptions, registry: Registry) -> ResponseStore | None:
    """The store that the options name; ``PluginError`` where it cannot be used."""
    if options.response_store == "none":
        return None
    limits = StoreLimits(
        max_responses=options.max_stored_responses, max_bytes=options.max_stored_response_bytes
    )
    store: ResponseStore = registry.make("response_stores", options.response_store, limits)
    return store


def _not_found(own_id: str, param: str) -> NotFoundError:
    code = "previous_response_not_found" if param == "previous_response_id" else "not_found"
    return NotFoundError(
        f"'{own_id[:128]}' is not kept here: it does not exist, was not stored, "
        "was deleted, or had to go",
        param=param,
        code=code,
    )


def _listed(item: Mapping[str, Any]) -> dict[str, Any]:
    """An input item as clients get it back: with an id, a type and its content in parts."""
    kind = item.get("type") or "message"
    listed: dict[str, Any] = {**item, "type": kind}
    if listed.get("id") is None:
        listed["id"] = new_id(_PREFIXES[kind])
    if kind == "message":
        listed["content"] = _parts(item.get("content"), item.get("role") == "assistant")
    if kind == "reasoning":
        listed.setdefault("summary", [])
    else:
        listed.setdefault("status", "completed")
    return listed


def _parts(content: Any, is_output: bool) -> Any:
    parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
    if not is_output:
        return [
            {**part, "type": "input_text"} if part.get("type") == "text" else part for part in parts
        ]
    return [
        part
        if part.get("type") == "refusal"
        else {"annotations": [], **part, "type": "output_text"}
        for part in parts
    ]
