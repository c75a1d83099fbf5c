"""Errors as the client sees them: OpenAI's error object and an HTTP status."""

from __future__ import annotations

from collections.abc import Mapping

from jackfield.contracts.generation import Finish
from jackfield.errors import EngineError, OverloadedError, RequestError
from jackfield.server.json_bytes import dumps

_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    422: "request_failed_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}

_ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
MESSAGES_PATH = "/v1/messages"


class AuthenticationError(RequestError):
    """No valid API key came with the request."""

    status = 401
    code = "invalid_api_key"


class BodyTooLargeError(RequestError):
    """The body is longer than the server takes."""

    status = 413
    code = "body_too_large"


class MethodNotAllowedError(RequestError):
    """The path exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class FailedRequestError(RequestError):
    """The engine took the request and could not finish it; the others go on."""

    status = 422
    code = "request_failed"


class UnavailableError(RequestError):
    """The server is loading, stopping, or has lost its engine."""

    status = 503
    code = "service_unavailable"


def as_request_error(error: Exception) -> RequestError:
    """The error a client may see. Anything unexpected becomes a plain 503: no traceback,
    address or path of ours in the text."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, EngineError):
        return UnavailableError("The engine is not available; try again later", code="engine_dead")
    return UnavailableError("The server failed to handle the request", code="internal_error")


def error_object(error: RequestError) -> dict[str, object]:
    """OpenAI's error object, as it stands in a response body or in a stream."""
    return {
        "error": {
            "message": error.message,
            "type": _TYPES.get(error.status, "invalid_request_error"),
            "param": error.param,
            "code": error.code,
        }
    }


def anthropic_error(error: RequestError) -> dict[str, object]:
    """Anthropic's error object, for the routes that speak its format."""
    kind = _ANTHROPIC_TYPES.get(error.status, "invalid_request_error")
    said: dict[str, object] = {"type": kind, "message": error.message}
    if error.param == "thread":
        # Anthropic's SDKs then send the whole conversation.
        said["details"] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return {"type": "error", "error": said}


def error_body(error: RequestError, path: str = "") -> bytes:
    """The JSON of an error on a path: clients of each format get their own shape."""
    if path == MESSAGES_PATH or path.startswith(MESSAGES_PATH + "/"):
        return dumps(anthropic_error(error))
    return dumps(error_object(error))


def error_headers(error: RequestError) -> list[tuple[bytes, bytes]]:
    """The headers an error answer has beside its content type and length."""
    if isinstance(error, OverloadedError):
        return [(b"retry-after", b"%d" % error.retry_after_seconds)]
    if isinstance(error, UnavailableError):
        return [(b"retry-after", b"1")]
    if isinstance(error, AuthenticationError):
        return [(b"www-authenticate", b"Bearer")]
    return []


def check_finish(finish: Finish) -> None:
    """Raises for a choice that did not end by itself: its request cannot be answered."""
    if finish.reason == "error":
        if finish.param is not None:
            raise RequestError(finish.message or "The request is refused", finish.param)
        raise FailedRequestError(finish.message or "The request failed")
    if finish.reason == "abort":
        raise UnavailableError("The request was aborted", code="aborted")
