"""``/v1/responses/{id}``: looking at kept responses, and deleting them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response

from jackfield.errors import NotFoundError, RequestError
from jackfield.server.json_bytes import dumps
from jackfield.server.responses.stored import StoredResponses

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


def add_lookup_routes(app: FastAPI, stored: StoredResponses) -> None:
    """The routes that need no engine."""

    @app.get("/v1/responses/{response_id}", summary="A kept response")
    async def retrieve(response_id: str, request: Request) -> Response:
        if request.query_params.get("stream", "false") != "false":
            raise RequestError(
                "'stream' cannot be used: only background responses can be streamed again",
                param="stream",
                code="unsupported_parameter",
            )
        return _json(await stored.response(response_id))

    @app.delete("/v1/responses/{response_id}", summary="Forget a kept response")
    async def delete(response_id: str) -> Response:
        await stored.delete(response_id)
        return _json({"id": response_id, "object": "response", "deleted": True})

    @app.get("/v1/responses/{response_id}/input_items", summary="The input of a kept response")
    async def input_items(response_id: str, request: Request) -> Response:
        items = await stored.input_items(response_id)
        query = request.query_params
        return _json(page(items, query.get("order"), query.get("limit"), query.get("after")))

    @app.post("/v1/responses/{response_id}/cancel", summary="Refused: there is nothing to cancel")
    async def cancel(response_id: str) -> Response:
        await stored.response(response_id)
        raise RequestError(
            "Only background responses can be cancelled, and this server makes none",
            param="response_id",
        )


def page(
    items: Sequence[Any], order: str | None, limit: str | None, after: str | None
) -> dict[str, Any]:
    """A page of a list, newest first unless ``order`` is ``asc``; ``after`` is an item's id."""
    if order not in (None, "asc", "desc"):
        raise RequestError("'order' must be asc or desc", param="order")
    count = DEFAULT_LIMIT
    if limit is not None:
        if not (limit.isascii() and limit.isdecimal() and len(limit) <= 3):
            raise RequestError(f"'limit' must be 1 to {MAX_LIMIT}", param="limit")
        count = int(limit)
    if not 1 <= count <= MAX_LIMIT:
        raise RequestError(f"'limit' must be 1 to {MAX_LIMIT}", param="limit")
    listed = list(items) if order == "asc" else list(reversed(items))
    if after is not None:
        ids = [item["id"] for item in listed]
        if after not in ids:
            raise NotFoundError(f"There is no input item '{after[:128]}'", param="after")
        listed = listed[ids.index(after) + 1 :]
    shown = listed[:count]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(listed) > count,
    }


def _json(value: object) -> Response:
    return Response(dumps(value), media_type="application/json")
