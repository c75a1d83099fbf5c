"""OpenAI's batch file format: one request a line, one answer a line."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from jackfield.errors import RequestError
from jackfield.server.door import new_id
from jackfield.server.errors import MESSAGES_PATH
from jackfield.server.json_bytes import dumps, loads
from jackfield.server.pooling.routes import PATHS as POOLING_PATHS

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    MESSAGES_PATH,
    *POOLING_PATHS,
)
"""What a line's ``url`` may be."""

_FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One line of the input: ``body`` is JSON, to be sent to ``path``."""

    custom_id: str
    path: str
    body: bytes


class LineError(Exception):
    """A line is no request. ``custom_id`` is what it said, if it did."""

    def __init__(self, code: str, message: str, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.custom_id = custom_id


def parse_line(line: bytes) -> BatchRequest:
    """A line of the input file; ``LineError`` says what is wrong with it."""
    try:
        data = loads(line)
    except RequestError as error:
        said = error.message.replace("The request body", "The line")
        raise LineError("invalid_json_line", said) from None
    if not isinstance(data, dict):
        raise LineError("invalid_json_line", "The line must be a JSON object")
    given = data.get("custom_id")
    custom_id = given if isinstance(given, str) else None
    for field in _FIELDS:
        if field not in data:
            raise LineError("missing_required_parameter", f"The line has no {field!r}", custom_id)
    if custom_id is None:
        raise LineError("invalid_custom_id", "'custom_id' must be a text")
    if data["method"] != "POST":
        raise LineError("invalid_method", "'method' must be 'POST'", custom_id)
    if data["url"] not in PATHS:
        raise LineError("invalid_url", f"'url' must be one of {', '.join(PATHS)}", custom_id)
    if not isinstance(data["body"], dict):
        raise LineError("invalid_body", "'body' must be a JSON object", custom_id)
    if data["body"].get("stream"):
        raise LineError("invalid_body", "'body.stream' must be false in a batch", custom_id)
    return BatchRequest(custom_id, data["url"], dumps(data["body"]))


def answer_line(request: BatchRequest, status: int, body: bytes) -> bytes:
    """The line of a request that was answered. One that failed says why twice: in the answer's
    body, as over HTTP, and as the line's ``error``."""
    answer = loads(body)
    response = {"status_code": status, "request_id": new_id("req_"), "body": answer}
    error = None
    if status >= HTTPStatus.BAD_REQUEST:
        told = answer["error"]
        error = {"code": told.get("code") or told["type"], "message": told["message"]}
    return _line(request.custom_id, response, error)


def error_line(error: LineError) -> bytes:
    """The line of what was no request."""
    return _line(error.custom_id, None, {"code": error.code, "message": str(error)})


def _line(custom_id: str | None, response: Any, error: Any) -> bytes:
    entry = {
        "id": new_id("batch_req_"),
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return dumps(entry) + b"\n"
