"""The objects of the Responses API: items, parts, usage, and the response around them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jackfield.contracts.messages import TokenLogprobs
from jackfield.errors import RequestError
from jackfield.server.door import new_id
from jackfield.server.output_items import Item, OutputItems
from jackfield.server.token_text import TokenText, chat_logprobs

RESPONSE_PREFIX = "resp_"
_PREFIXES = {"thinking": "rs_", "text": "msg_", "call": "fc_"}
_ITEM_ID = re.compile("(?:rs|msg|fc)_([0-9a-f]{32})_([0-9]{1,9})")
# The codes that OpenAI's ResponseError knows.
_ERROR_CODES: Mapping[int, str] = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseShape:
    """What one response says of its request, and how its tokens look."""

    base: Mapping[str, Any]
    """The response object's fields that do not change while it is generated."""
    num_prompt_tokens: int
    names: TokenText
    num_top: int | None
    """How many alternatives a token's logprobs have; None: no logprobs."""
    namespaces: Mapping[str, tuple[str, str]]
    """The namespace and the name behind the model's names of functions that have one."""

    @property
    def id(self) -> str:
        """The response's."""
        own: str = self.base["id"]
        return own

    def called(self, item: Item) -> dict[str, str]:
        """The ``name`` of a call's function, and its ``namespace`` if it is in one."""
        if item.name not in self.namespaces:
            return {"name": item.name}
        namespace, name = self.namespaces[item.name]
        return {"namespace": namespace, "name": name}

    def logprobs(self, entries: list[TokenLogprobs] | tuple[TokenLogprobs, ...]) -> Any:
        """The ``logprobs`` of a piece of text; empty where they are not asked for."""
        if self.num_top is None or not entries:
            return []
        return chat_logprobs(entries, self.names, self.num_top)["content"]


@dataclass(slots=True)
class ItemIds:
    """The ids that items and calls have in the answer. An item's says where it stands, so that a
    later request can refer to it."""

    response_id: str
    _calls: dict[int, str] = field(default_factory=dict)

    def of(self, item: Item) -> str:
        """``rs_``, ``msg_`` or ``fc_``, and what ``response_place`` reads."""
        unique = self.response_id.removeprefix(RESPONSE_PREFIX)
        return f"{_PREFIXES[item.kind]}{unique}_{item.index}"

    def of_call(self, item: Item) -> str:
        """What the output of the call will refer to; given when first asked for."""
        if item.index not in self._calls:
            self._calls[item.index] = item.call_id or new_id("call_")
        return self._calls[item.index]


def response_place(item_id: str) -> tuple[str, int] | None:
    """The response in whose output the item of this id stands, and where."""
    found = _ITEM_ID.fullmatch(item_id)
    return None if found is None else (RESPONSE_PREFIX + found[1], int(found[2]))


def content_part(item: Item, shape: ResponseShape) -> dict[str, Any]:
    """The one part of a message or of thinking."""
    if item.kind == "thinking":
        return {"type": "reasoning_text", "text": item.text}
    return {
        "type": "output_text",
        "text": item.text,
        "annotations": [],
        "logprobs": shape.logprobs(item.logprobs),
    }


def begun_item(item: Item, ids: ItemIds, shape: ResponseShape) -> dict[str, Any]:
    """The item while it is generated: as yet without what it says."""
    return _item(item, ids, shape, "in_progress", [], "")


def whole_item(item: Item, ids: ItemIds, shape: ResponseShape) -> dict[str, Any]:
    """The item once it is closed."""
    status = "completed" if item.is_whole else "incomplete"
    parts = [] if item.kind == "call" else [content_part(item, shape)]
    return _item(item, ids, shape, status, parts, item.text)


def _item(
    item: Item,
    ids: ItemIds,
    shape: ResponseShape,
    status: str,
    parts: list[dict[str, Any]],
    arguments: str,
) -> dict[str, Any]:
    own_id = ids.of(item)
    if item.kind == "text":
        return {
            "id": own_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": parts,
        }
    if item.kind == "thinking":
        return {
            "id": own_id,
            "type": "reasoning",
            "status": status,
            "summary": [],
            "content": parts,
            "encrypted_content": None,
        }
    return {
        "id": own_id,
        "type": "function_call",
        "status": status,
        "call_id": ids.of_call(item),
        **shape.called(item),
        "arguments": arguments,
    }


def usage(items: OutputItems, num_prompt_tokens: int) -> dict[str, Any]:
    """Token counts."""
    return {
        "input_tokens": num_prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": items.num_cached_tokens,
            "cache_write_tokens": 0,
        },
        "output_tokens": items.num_output_tokens,
        "output_tokens_details": {"reasoning_tokens": items.num_reasoning_tokens},
        "total_tokens": num_prompt_tokens + items.num_output_tokens,
    }


def running_response(shape: ResponseShape) -> dict[str, Any]:
    """The response while it is generated."""
    return {
        **shape.base,
        "error": None,
        "incomplete_details": None,
        "status": "in_progress",
        "completed_at": None,
        "output": [],
        "usage": None,
    }


def finished_response(items: OutputItems, ids: ItemIds, shape: ResponseShape) -> dict[str, Any]:
    """The response with all its items."""
    assert items.finish is not None, "the choice has finished"
    is_cut = items.finish.reason == "length"
    return {
        **shape.base,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "status": "incomplete" if is_cut else "completed",
        "completed_at": None if is_cut else int(time.time()),
        "output": [whole_item(item, ids, shape) for item in items.items],
        "usage": usage(items, shape.num_prompt_tokens),
    }


def failed_response(error: RequestError, shape: ResponseShape) -> dict[str, Any]:
    """The response that broke off."""
    code = _ERROR_CODES.get(error.status, "server_error")
    return {
        **running_response(shape),
        "status": "failed",
        "error": {"code": code, "message": error.message},
    }
