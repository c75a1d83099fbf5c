"""The OpenAI API as a terminal client needs it: one question at a time, the answer as it comes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

from jackfield.errors import ApiError

CONNECT_SECONDS = 10.0
_BROKEN = (OSError, http.client.HTTPException)


class ApiClient:
    """Talks to the server at ``url`` (``http://host:port/v1``). Not thread-safe."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ApiError(f"{url!r} is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not self._host:
            raise ApiError(f"{url!r} is not an http or https URL")
        self._url = url
        https = parts.scheme == "https"
        self._connection = http.client.HTTPSConnection if https else http.client.HTTPConnection
        self._prefix = parts.path.rstrip("/") or "/v1"
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def models(self) -> list[str]:
        """The names that the server serves."""
        with self._asked("GET", "/models", None) as response:
            return [str(model["id"]) for model in json.loads(response.read())["data"]]

    def stream(self, path: str, body: Mapping[str, object]) -> Generator[dict[str, Any]]:
        """The chunks of the answer to a POST. Who leaves early closes the iterator: the server
        then stops computing. Raises ``ApiError`` for an error before or within the stream."""
        with self._asked("POST", path, json.dumps(body).encode()) as response:
            is_stream = False
            for line in iter(response.readline, b""):
                if not line.startswith(b"data:"):
                    continue
                is_stream = True
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    continue
                chunk: dict[str, Any] = json.loads(data)
                if error := chunk.get("error"):
                    raise ApiError(_told(error))
                yield chunk
            if not is_stream:
                raise ValueError("no stream")

    @contextmanager
    def _asked(
        self, method: str, path: str, body: bytes | None
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request, if it is a right one; what goes wrong while it is read is an
        ``ApiError`` too."""
        kind = self._connection
        with closing(kind(self._host, self._port, timeout=CONNECT_SECONDS)) as connection:
            try:
                connection.connect()
                # A long prompt may keep the first token waiting: only connecting has a deadline.
                connection.sock.settimeout(None)
                connection.request(method, self._prefix + path, body, self._headers)
                response = connection.getresponse()
            except _BROKEN as error:
                raise ApiError(
                    f"no server answers at {self._url} ({error}); "
                    "start one with `jackfield serve MODEL`, or name one with --url"
                ) from None
            try:
                if response.status != http.HTTPStatus.OK:
                    raise ApiError(_refusal(response))
                yield response
            except _BROKEN as error:
                raise ApiError(f"the connection to {self._url} broke off ({error})") from None
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ApiError(
                    f"what {self._url} answers is not the OpenAI API; its address ends with /v1"
                ) from None


def _refusal(response: http.client.HTTPResponse) -> str:
    """What the server says is wrong; its status where it says nothing that can be read."""
    answered = f"the server answered {response.status}"
    try:
        return f"{answered}: {_told(json.loads(response.read())['error'])}"
    except (ValueError, KeyError, TypeError):
        return f"{answered} {response.reason}"


def _told(error: object) -> str:
    """The message of an error, which some servers send as bare text."""
    return str(error.get("message", error) if isinstance(error, dict) else error)
